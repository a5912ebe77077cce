// A line over time, with what alerts say of it: shaded spans, and dashed lines where their limits are.
import { colour, value } from "./write.js";

const HEIGHT = 260;

// lines: [{at, text}]; bands: [from, to], to = null while it goes on. `fit`: the limits are always in view
export function plotted(box, { label, field, data, bands = () => [], lines = () => [], height = HEIGHT, fit = false, zoom = true }) {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  const plot = new uPlot({
    width: box.clientWidth, height, cursor: { drag: { x: zoom, y: false } },
    scales: {
      x: { range: (u, low, high) => (low === high ? [low - 30, high + 30] : [low, high]) },
      y: { range: (u, low, high) => inView(low, high, fit ? lines().map((one) => one.at) : []) },
    },
    axes: [axis, { ...axis, size: 62 }],
    series: [{ label: "time" }, { label: field, stroke: colour("accent"), width: 1.75, points: { size: 5 }, value: (u, v) => value(v) }],
    hooks: {
      drawClear: [(u) => shade(u, bands())],
      draw: [(u) => limits(u, lines())],
      setSelect: [(u) => { if (u.select.width > 0) u.zoomed = true; }],
      ready: [(u) => u.over.addEventListener("dblclick", () => { u.zoomed = false; })],
    },
  }, data, box);
  plot.label = label;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", label);
  return plot;
}

function inView(low, high, more) {
  if (low === null || high === null) [low, high] = more.length ? [more[0], more[0]] : [0, 1];
  const least = Math.min(low, ...more);
  const most = Math.max(high, ...more);
  const spare = (most - least) * 0.08 || Math.abs(most) * 0.1 || 1;
  return [least - spare, most + spare];
}

function shade(u, bands) {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.fillStyle = colour("band");
  for (const [from, to] of bands) {
    const a = Math.max(left, u.valToPos(from, "x", true));
    const b = to === null ? left + width : Math.min(left + width, u.valToPos(to, "x", true));
    if (b > a) u.ctx.fillRect(a, top, Math.max(b - a, 2), height);
  }
  u.ctx.restore();
}

function limits(u, lines) {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.strokeStyle = u.ctx.fillStyle = colour("bad");
  u.ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  u.ctx.textAlign = "left";
  u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const { at, text } of lines) {
    const y = u.valToPos(at, "y", true);
    if (y < top || y > top + height) continue;
    u.ctx.beginPath();
    u.ctx.moveTo(left, y);
    u.ctx.lineTo(left + width, y);
    u.ctx.stroke();
    u.ctx.fillText(text, left + 6 * devicePixelRatio, y > top + 20 * devicePixelRatio ? y - 5 * devicePixelRatio : y + 14 * devicePixelRatio);
  }
  u.ctx.restore();
}

// What a condition's part says of a field: `temperature > 30` -> {field, at: 30, text}
export function limit(part, level) {
  const told = /^\s*([A-Za-z_]\w*)\s*(?:>=?|<=?|[!=]=)/.exec(part.text);
  return told && typeof part.right === "number" ? { field: told[1], at: part.right, text: `${level} ${part.text}` } : null;
}
