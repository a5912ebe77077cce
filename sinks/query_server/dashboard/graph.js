// The graph as a picture: from the left to the right, as rows go. Made of SVG, which a screen reader is told to skip: the
// table has the same.
import { count, fill } from "./write.js";

const WIDE = 168, HIGH = 50, APART = 46, BETWEEN = 12;

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

export function picture(box, nodes) {
  const named = new Map(nodes.map((node) => [node.name, node]));
  const from = (node) => (node.inputs || []).map((input) => named.get(input) || named.get(input.split(".")[0])).filter(Boolean);
  const depths = new Map();
  const depth = (node) => {
    if (!depths.has(node)) {
      depths.set(node, 0); // a cycle cannot be; if it were, it would end here
      depths.set(node, 1 + Math.max(-1, ...from(node).map(depth)));
    }
    return depths.get(node);
  };
  const deepest = Math.max(0, ...nodes.map(depth));
  for (const node of nodes) if (node.kind === "sink") depths.set(node, Math.max(depths.get(node), deepest));
  const columns = [];
  for (const node of nodes) (columns[depths.get(node)] ||= []).push(node);
  const place = new Map();
  const tallest = Math.max(...columns.map((column) => (column ? column.length : 0)));
  const height = tallest * (HIGH + BETWEEN) + BETWEEN;
  columns.forEach((column, x) => {
    const mean = (node) => { const ys = from(node).map((one) => place.get(one)?.y ?? 0); return ys.length ? ys.reduce((a, b) => a + b, 0) / ys.length : 0; };
    if (x) column.sort((a, b) => mean(a) - mean(b));
    const top = (height - column.length * (HIGH + BETWEEN) + BETWEEN) / 2;
    column.forEach((node, y) => place.set(node, { x: x * (WIDE + APART) + 1, y: top + y * (HIGH + BETWEEN) }));
  });
  const width = columns.length * (WIDE + APART) - APART + 2;
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  for (const node of nodes) {
    for (const one of from(node)) {
      const a = place.get(one), b = place.get(node);
      const [x1, y1, x2, y2] = [a.x + WIDE, a.y + HIGH / 2, b.x, b.y + HIGH / 2];
      const bend = Math.max(20, (x2 - x1) / 2);
      drawn.append(svg("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }));
    }
  }
  for (const node of nodes) {
    const { x, y } = place.get(node);
    const trouble = node.error ? "failed" : node.refused ? `${count(node.refused)} refused` : node.dead ? `${node.dead} dead` : "";
    const below = [trouble || node.type, node.rate === "" ? "" : `${node.rate}/s`];
    drawn.append(svg("g", { class: `node ${node.error ? "broken" : trouble ? "odd" : ""}` },
      svg("title", {}, `${node.name}: ${node.type} ${node.kind}${node.error ? `: ${node.error}` : ""}`),
      svg("rect", { x, y, width: WIDE, height: HIGH, rx: 8 }),
      svg("text", { x: x + 12, y: y + 21, class: "title" }, cut(node.name, 20)),
      svg("text", { x: x + 12, y: y + 39, class: "sub" }, cut(below[0], 16)),
      svg("text", { x: x + WIDE - 12, y: y + 39, class: "rate" }, below[1])));
  }
  fill(box, drawn);
}
