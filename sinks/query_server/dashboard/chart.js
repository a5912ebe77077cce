// The history of one key: a chart or a table, with what alerts say of it.
import { ask, get, part, Refused } from "./ask.js";
import { forget } from "./dialogs.js";
import { limit, plotted } from "./plot.js";
import { isNumber, it, keyOf, on, streamOf, tell } from "./state.js";
import { $, clock, count, element, isCalm, seconds, set, table, value } from "./write.js";

const SPANS = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["1 d", 86400], ["7 d", 604800]];
const POINTS = 800; // of a chart
const TABLE_ROWS = 200;
const KEEP = 4000; // points that live rows may bring a chart to

let span = 3600;
let field = null;
let points = []; // rows, oldest first
let bands = []; // [from, to] in seconds, to = null while it goes on
let limits = []; // of the chosen key's alerts: {field, at, text}
let plot = null;
let loaded = false; // live rows may be added

const asTable = () => $("as-table").getAttribute("aria-pressed") === "true";

export async function choose(name, key, go = false) {
  const stream = streamOf(name);
  const numbers = Object.keys(stream.fields).filter((f) => isNumber(stream.fields[f]));
  it.chosen = { stream: name, key };
  limits = [];
  if (!numbers.includes(field)) field = numbers[0] || null;
  $("field").replaceChildren(...numbers.map((f) => element("option", { value: f }, f)));
  if (field) $("field").value = field;
  $("chart-title").textContent = key ? `${key} · ${name}` : name;
  $("history").hidden = !field;
  $("forget").hidden = !key;
  tell("chosen");
  if (!field) return;
  if (go) $("history").scrollIntoView({ block: "nearest", behavior: isCalm() ? "auto" : "smooth" });
  await load();
}

export async function load() {
  const asked = it.chosen;
  if (!asked || !field) return;
  const key = asked.key ? "&key=" + part(asked.key) : "";
  const path = `api/streams/${part(asked.stream)}/rows?from=-${span}s${key}`;
  loaded = false;
  let found, alarms;
  try {
    const answer = await ask(`${path}&points=${POINTS}&fields=${part(field)}`);
    // A device of an earlier version does not know `points`.
    found = answer.ok ? (await answer.json()).rows : (await get(`${path}&limit=${KEEP}&order=desc`)).rows.reverse();
    alarms = await alarmsOf(asked);
  } catch (error) {
    if (!(error instanceof Refused)) set($("chart-note"), "The history could not be read: " + error.message);
    return;
  }
  if (asked !== it.chosen) return;
  points = found;
  bands = alarms;
  loaded = true;
  draw();
}

async function alarmsOf({ key }) {
  const found = [];
  for (const stream of it.streams.filter((s) => s.role === "alerts" && s.key)) {
    const told = await get(`api/streams/${part(stream.name)}/rows?from=-${span}s&limit=1000&key=${part(key)}`);
    let open = null;
    for (const row of told.rows) {
      if (row.state === "firing" && open === null) open = seconds(row.since || row.time);
      if (row.state === "cleared") { found.push([open === null ? 0 : open, seconds(row.time)]); open = null; }
    }
    if (open !== null) found.push([open, null]);
  }
  for (const one of it.firing) if (one.key === key && !found.some((band) => band[1] === null)) found.push([seconds(one.since || one.time), null]);
  const joined = [];
  for (const band of found.sort((a, b) => a[0] - b[0])) {
    const last = joined[joined.length - 1];
    if (!last || (last[1] !== null && band[0] > last[1])) joined.push(band);
    else if (last[1] !== null) last[1] = band[1] === null ? null : Math.max(last[1], band[1]);
  }
  return joined;
}

// New rows of the chosen key; true: the chart shows something else now
export function more(name, found) {
  if (!loaded || !it.chosen || it.chosen.stream !== name) return false;
  const stream = streamOf(name);
  const newest = points.length ? points[points.length - 1].time : "";
  const own = found.filter((row) => keyOf(stream, row) === it.chosen.key && row.time >= newest);
  if (!own.length) return false;
  points.push(...own);
  const from = new Date(Date.now() - span * 1000).toISOString();
  while (points.length > KEEP || (points.length && points[0].time < from)) points.shift();
  return true;
}

export function draw() {
  const box = $("chart");
  const data = [points.map((row) => seconds(row.time)), points.map((row) => (typeof row[field] === "number" ? row[field] : null))];
  const empty = !points.length;
  const hint = matchMedia("(pointer: coarse)").matches || asTable() ? "" : "Drag over the chart to zoom, double-click to go back.";
  set($("chart-note"), empty ? "No rows in this span." : `${count(points.length)} points${bands.length ? "; the shaded spans are alerts" : ""}. ${hint}`);
  box.hidden = empty || asTable();
  if (asTable()) return writeTable();
  if (empty) return;
  const label = `Chart of ${field} of ${it.chosen.key || it.chosen.stream}. The button Table shows the same as a table.`;
  if (plot && plot.label === label) {
    if (Math.abs(plot.width - box.clientWidth) > 1) plot.setSize({ width: box.clientWidth, height: plot.height });
    plot.setData(data, !plot.zoomed);
    return;
  }
  if (plot) plot.destroy();
  plot = plotted(box, { label, field, data, bands: () => bands, lines: () => limits.filter((one) => one.field === field) });
}

function writeTable() {
  const told = points.slice(-TABLE_ROWS).reverse().map((row) => [clock(row.time), value(row[field])]);
  $("chart-table").replaceChildren(table([["Time"], [field, "n"]], told));
}

function again() { // the colours or the size may have changed
  if (plot) { plot.destroy(); plot = null; }
  if (it.chosen && field) draw();
}

$("forget").addEventListener("click", () => forget(it.chosen.key));
$("field").addEventListener("change", () => { field = $("field").value; load(); });
$("as-table").addEventListener("click", () => {
  const is = !asTable();
  $("as-table").setAttribute("aria-pressed", is);
  $("chart-table").hidden = !is;
  if (is) draw(); else again();
});
for (const [text, s] of SPANS) {
  $("spans").append(element("button", { type: "button", "aria-pressed": String(s === span), onclick: (event) => {
    span = s;
    for (const other of $("spans").children) other.setAttribute("aria-pressed", other === event.target);
    if (plot) plot.zoomed = false;
    load();
  } }, text));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
addEventListener("resize", () => { if (plot && !$("chart").hidden) plot.setSize({ width: $("chart").clientWidth, height: plot.height }); });
on("choose", choose);
on("explained", (told) => { // what the alerts of the key wait for
  limits = told.flatMap((one) => one.levels.flatMap((level) => level.when.parts.map((p) => limit(p, one.alert)))).filter(Boolean);
  if (plot) plot.redraw();
});
