// The dashboard: asks the device what any client could ask. No build step; uPlot is the only thing that is not ours.
"use strict";

const $ = (id) => document.getElementById(id);
const SPANS = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["1 d", 86400], ["7 d", 604800]];
const POLL_MS = 5000;
const TILES = innerWidth < 700 ? 12 : 42; // as long as nobody asks for more: the chart should not be far below
const POINTS = 800; // of a chart
const TABLE_ROWS = 200;
const KEEP = 4000; // points that live rows may bring a chart to

let token = sessionStorage.getItem("token") || "";
let streams = []; // as /api/streams tells them
let rows = new Map(); // stream -> key -> its newest row
let shown = null; // the stream of the tiles
let all = false; // more than TILES of them
let chosen = null; // {stream, key}: what the chart shows
let span = 3600;
let field = null;
let points = []; // of the chart: rows, oldest first
let bands = []; // [from, to] in seconds, to = null while it goes on
let plot = null;
let firing = [];
let lastId = ""; // of the last event
let heard = 0; // when the device said something, ms
let live = null; // what ends the stream of events
let before = null; // {at, nodes}: counts of the last look at the graph
const tiles = new Map();
const changed = new Set();

// --- asking ---

class Refused extends Error {}

async function ask(path, more = {}) {
  const headers = { ...more.headers };
  if (token) headers.Authorization = "Bearer " + token;
  const answer = await fetch(path, { cache: "no-store", ...more, headers });
  heard = Date.now();
  if (answer.status === 401) {
    askToken();
    throw new Refused("a token is needed");
  }
  return answer;
}

async function get(path) {
  const answer = await ask(path);
  const body = await answer.json();
  if (!answer.ok && path !== "health") throw new Error(body.detail || answer.statusText);
  return body;
}

function askToken() {
  const again = Boolean(token);
  token = "";
  sessionStorage.removeItem("token");
  if (live) live.abort();
  $("main").hidden = true;
  $("ask").hidden = false;
  line("warn", again ? "wrong token" : "locked");
  $("token").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  $("token").value = "";
  $("ask").hidden = true;
  begin();
});

// --- how things are written ---

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const seconds = (text) => Date.parse(text) / 1000;
const isNumber = (kind) => /^(float|int)/.test(kind);
const count = (n) => Number(n || 0).toLocaleString("en");

function value(v) {
  if (v === null || v === undefined) return "–";
  if (typeof v === "number") {
    if (Number.isInteger(v)) return Math.abs(v) < 1e15 ? v.toLocaleString("en") : v.toExponential(4);
    const size = Math.abs(v);
    return size !== 0 && (size < 1e-3 || size >= 1e9) ? v.toExponential(3)
      : v.toLocaleString("en", { maximumFractionDigits: size < 1 ? 4 : size < 100 ? 2 : 1 });
  }
  if (typeof v === "string" && /^\d{4}-\d\d-\d\dT.*Z$/.test(v)) return clock(v);
  return String(v);
}

function clock(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}

function ago(text) {
  const s = Math.max(0, Date.now() / 1000 - seconds(text));
  if (s < 5) return "now";
  if (s < 90) return Math.round(s) + " s ago";
  if (s < 5400) return Math.round(s / 60) + " min ago";
  if (s < 129600) return Math.round(s / 3600) + " h ago";
  return Math.round(s / 86400) + " d ago";
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000 || unit === "GB") return value(bytes) + " " + unit;
    bytes /= 1000;
  }
}

function table(head, body) {
  const row = (cells, name) => element("tr", {}, ...cells.map((cell, i) => {
    const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
    return element(name, { class: [/^n\b/.test(head[i][1] || "") ? "n" : "", kind || (name === "td" ? head[i][2] || "" : "")].join(" ").trim() || null,
      ...(name === "th" ? { scope: "col" } : {}) }, text);
  }));
  return [element("thead", {}, row(head.map((h) => h[0]), "th")), element("tbody", {}, ...body.map((cells) => row(cells, "td")))];
}

function line(kind, text) {
  if ($("line").textContent === text) return;
  $("line").className = "pill " + kind;
  $("line").textContent = text;
}

function trouble(text) {
  $("trouble").hidden = !text;
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
}

// --- tiles ---

const keyOf = (stream, row) => (stream.key ? String(row[stream.key]) : "");

function take(name, found) {
  const stream = streams.find((s) => s.name === name);
  if (!stream) return;
  const latest = rows.get(name);
  for (const row of found) {
    const key = keyOf(stream, row);
    const had = latest.get(key);
    if (had && had.time > row.time) continue;
    latest.set(key, row);
    if (name === shown) changed.add(key);
  }
  if (chosen && chosen.stream === name && isNow()) {
    const more = found.filter((row) => keyOf(stream, row) === chosen.key && (!points.length || row.time >= points[points.length - 1].time));
    if (more.length) {
      points.push(...more);
      const from = new Date(Date.now() - span * 1000).toISOString();
      while (points.length > KEEP || (points.length && points[0].time < from)) points.shift();
      changed.add(null);
    }
  }
  if (stream.role === "alerts") lookAtAlerts();
  paint();
}

let painting = false;
function paint() {
  if (painting || document.hidden) return;
  painting = true;
  setTimeout(() => requestAnimationFrame(() => { // four times a second is enough for eyes, and for a phone's battery
    painting = false;
    if (changed.delete(null)) draw();
    let isNew = false;
    for (const key of changed) {
      if (tiles.has(key)) fill(tiles.get(key), key);
      else isNew = true;
    }
    changed.clear();
    if (isNew) layTiles();
  }), 250);
}

function layTiles() {
  const stream = streams.find((s) => s.name === shown);
  if (!stream) return;
  const latest = rows.get(shown);
  const wanted = $("find").value.trim().toLowerCase();
  const alarms = new Set(stream.key === null ? [] : firing.map((one) => one.key));
  let keys = [...latest.keys()].filter((key) => key.toLowerCase().includes(wanted))
    .sort((a, b) => alarms.has(b) - alarms.has(a) || a.localeCompare(b, "en", { numeric: true }));
  const found = keys.length;
  if (!all) keys = keys.slice(0, TILES);
  $("find-box").hidden = latest.size < 9;
  $("more").hidden = keys.length === found;
  $("more").textContent = `Show all ${found}`;
  $("nothing").hidden = found > 0;
  $("nothing").textContent = latest.size ? "No key contains that." : "No rows yet. They appear here as soon as they come.";
  for (const [key, tile] of tiles) if (!keys.includes(key)) { tile.item.remove(); tiles.delete(key); }
  keys.forEach((key, i) => {
    let tile = tiles.get(key);
    if (!tile) tiles.set(key, (tile = newTile(key)));
    if ($("tiles").children[i] !== tile.item) $("tiles").insertBefore(tile.item, $("tiles").children[i] || null);
    fill(tile, key);
  });
}

function newTile(key) {
  const parts = { key: element("span", { class: "key" }), value: element("span", { class: "value" }), more: element("span", { class: "more" }), time: element("span", { class: "more" }) };
  const button = element("button", { class: "tile", type: "button", onclick: () => choose(shown, key, true) }, parts.key, parts.value, parts.more, parts.time);
  return { ...parts, button, item: element("li", {}, button) };
}

function fill(tile, key) {
  const stream = streams.find((s) => s.name === shown);
  const row = rows.get(shown).get(key);
  const names = Object.keys(stream.fields).filter((name) => name in row);
  const main = names.find((name) => isNumber(stream.fields[name])) || names[0];
  const alarm = stream.key !== null && firing.some((one) => one.key === key);
  set(tile.key, key || stream.name);
  set(tile.value, value(row[main]));
  set(tile.more, names.filter((name) => name !== main && row[name] !== null).map((name) => `${name} ${value(row[name])}`).join(" · ") || main);
  set(tile.time, (alarm ? "⚠ firing · " : "") + ago(row.time));
  tile.time.className = alarm ? "more mark" : "more";
  tile.button.title = key;
  tile.button.classList.toggle("firing", alarm);
  tile.button.setAttribute("aria-pressed", Boolean(chosen && chosen.stream === shown && chosen.key === key));
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(name) {
  shown = name;
  all = false;
  for (const tile of tiles.values()) tile.item.remove();
  tiles.clear();
  layTiles();
}

$("stream").addEventListener("change", () => {
  show($("stream").value);
  const first = [...tiles.keys()][0];
  if (first !== undefined) choose(shown, first);
});
$("find").addEventListener("input", layTiles);
$("more").addEventListener("click", () => { all = true; layTiles(); });

// --- the chart ---

const isNow = () => Boolean(plot) || points.length > 0 || $("chart-note").dataset.empty === "1";

async function choose(name, key, go = false) {
  const stream = streams.find((s) => s.name === name);
  const numbers = Object.keys(stream.fields).filter((f) => isNumber(stream.fields[f]));
  chosen = { stream: name, key };
  for (const [own, tile] of tiles) tile.button.setAttribute("aria-pressed", own === key);
  if (!numbers.includes(field)) field = numbers[0] || null;
  $("field").replaceChildren(...numbers.map((f) => element("option", { value: f }, f)));
  if (field) $("field").value = field;
  $("chart-title").textContent = key ? `${key} · ${name}` : name;
  $("history").hidden = !field;
  if (!field) return;
  if (go) $("history").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  await load();
}

async function load() {
  const asked = chosen;
  const key = asked.key ? "&key=" + encodeURIComponent(asked.key) : "";
  const path = `api/streams/${encodeURIComponent(asked.stream)}/rows?from=-${span}s${key}`;
  let found;
  try {
    const answer = await ask(`${path}&points=${POINTS}&fields=${encodeURIComponent(field)}`);
    // A device of an earlier version does not know `points`.
    found = answer.ok ? (await answer.json()).rows : (await get(`${path}&limit=${KEEP}&order=desc`)).rows.reverse();
    bands = await alarmsOf(asked);
  } catch (error) {
    if (!(error instanceof Refused)) $("chart-note").textContent = "The history could not be read: " + error.message;
    return;
  }
  if (asked !== chosen) return;
  points = found;
  draw();
}

async function alarmsOf({ key }) {
  const found = [];
  for (const stream of streams.filter((s) => s.role === "alerts" && s.key)) {
    const told = await get(`api/streams/${encodeURIComponent(stream.name)}/rows?from=-${span}s&limit=1000&key=${encodeURIComponent(key)}`);
    let open = null;
    for (const row of told.rows) {
      if (row.state === "firing" && open === null) open = seconds(row.since || row.time);
      if (row.state === "cleared") { found.push([open === null ? 0 : open, seconds(row.time)]); open = null; }
    }
    if (open !== null) found.push([open, null]);
  }
  for (const one of firing) if (one.key === key && !found.some((band) => band[1] === null)) found.push([seconds(one.since || one.time), null]);
  const joined = [];
  for (const band of found.sort((a, b) => a[0] - b[0])) {
    const last = joined[joined.length - 1];
    if (!last || (last[1] !== null && band[0] > last[1])) joined.push(band);
    else if (last[1] !== null) last[1] = band[1] === null ? null : Math.max(last[1], band[1]);
  }
  return joined;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function draw() {
  const box = $("chart");
  const data = [points.map((row) => seconds(row.time)), points.map((row) => (typeof row[field] === "number" ? row[field] : null))];
  const empty = !points.length;
  set($("chart-note"), empty ? "No rows in this span." : `${count(points.length)} points${bands.length ? "; the shaded spans are alerts" : ""}. ${matchMedia("(pointer: coarse)").matches || $("as-table").getAttribute("aria-pressed") === "true" ? "" : "Drag over the chart to zoom, double-click to go back."}`);
  $("chart-note").dataset.empty = empty ? "1" : "";
  box.hidden = empty || $("as-table").getAttribute("aria-pressed") === "true";
  if ($("as-table").getAttribute("aria-pressed") === "true") return writeTable();
  if (empty) return;
  const width = box.clientWidth;
  const label = `${field} of ${chosen.key || chosen.stream}`;
  if (plot && plot.label === label) {
    if (Math.abs(plot.width - width) > 1) plot.setSize({ width, height: 260 });
    const zoomed = plot.zoomed;
    plot.setData(data, !zoomed);
    return;
  }
  if (plot) plot.destroy();
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  plot = new uPlot({
    width, height: 260, cursor: { drag: { x: true, y: false } },
    scales: { x: { range: (u, low, high) => (low === high ? [low - 30, high + 30] : [low, high]) } },
    axes: [axis, { ...axis, size: 62 }],
    series: [{ label: "time" }, { label: field, stroke: colour("accent"), width: 1.75, points: { size: 5 }, value: (u, v) => value(v) }],
    hooks: {
      drawClear: [shade],
      setSelect: [(u) => { if (u.select.width > 0) u.zoomed = true; }],
      ready: [(u) => u.over.addEventListener("dblclick", () => { u.zoomed = false; })],
    },
  }, data, box);
  plot.label = label;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `Chart of ${label}. The button Table shows the same as a table.`);
}

function shade(u) {
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

function writeTable() {
  const told = points.slice(-TABLE_ROWS).reverse().map((row) => [clock(row.time), value(row[field])]);
  $("chart-table").replaceChildren(element("table", {}, ...table([["Time"], [field, "n"]], told)));
}

function again() { // the colours or the size may have changed
  if (plot) { plot.destroy(); plot = null; }
  if (chosen && field) draw();
}

$("field").addEventListener("change", () => { field = $("field").value; load(); });
$("as-table").addEventListener("click", () => {
  const on = $("as-table").getAttribute("aria-pressed") !== "true";
  $("as-table").setAttribute("aria-pressed", on);
  $("chart-table").hidden = !on;
  if (!on) again(); else draw();
});
for (const [text, s] of SPANS) {
  $("spans").append(element("button", { type: "button", "aria-pressed": s === span, onclick: (event) => {
    span = s;
    for (const other of $("spans").children) other.setAttribute("aria-pressed", other === event.target);
    if (plot) plot.zoomed = false;
    load();
  } }, text));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
addEventListener("resize", () => { if (plot && !$("chart").hidden) plot.setSize({ width: $("chart").clientWidth, height: 260 }); });

// --- alerts ---

let looking = null;
function lookAtAlerts() {
  looking = looking || setTimeout(async () => {
    looking = null;
    try { await alerts(); } catch { /* the next look tells */ }
  }, 300);
}

async function alerts() {
  firing = (await get("api/alerts?state=firing")).alerts;
  $("alarms").hidden = !firing.length;
  $("alarms-title").textContent = firing.length > 1 ? `Firing now: ${firing.length}` : "Firing now";
  $("firing").replaceChildren(...firing.slice(0, 20).map(alarm));
  if (firing.length > 20) $("firing").append(element("li", {}, `… and ${firing.length - 20} more: api/alerts?state=firing`));
  document.title = (firing.length ? `(${firing.length}) ` : "") + $("name").textContent;
  layTiles();
}

function alarm(one) {
  const known = one.acknowledged;
  const open = known ? element("span", { class: "muted" }, `seen by ${known.by}`)
    : "acknowledged" in one ? element("button", { class: "quiet", type: "button", onclick: () => acknowledge(one) }, "Acknowledge") : null;
  return element("li", {}, element("span", { class: "level" }, "⚠ " + (one.level || "firing")),
    element("span", { class: "what" }, one.message || `${one.alert || one.stream} ${one.key}`),
    element("span", { class: "muted" }, `${one.key ? one.key + " · " : ""}since ${clock(one.since || one.time)}`), open);
}

async function acknowledge(one) {
  const by = (sessionStorage.getItem("by") || prompt("Your name, for those who ask who has seen it:") || "").trim();
  if (!by) return;
  sessionStorage.setItem("by", by);
  try {
    const answer = await ask(`api/alerts/${one.id}/acknowledge`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ by }) });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    trouble("");
    await alerts();
  } catch (error) {
    trouble("It could not be acknowledged: " + error.message);
  }
}

// --- the pipeline itself ---

async function graph() {
  const { nodes } = await get("api/graph");
  const at = Date.now();
  const rate = (node) => {
    const had = before && before.nodes.find((n) => n.name === node.name);
    const total = (n) => n.rows_out ?? n.rows_in;
    if (!had || total(node) === undefined || total(node) < total(had)) return "";
    return value(Math.round(((total(node) - total(had)) / (at - before.at)) * 10000) / 10);
  };
  const number = (n) => (n === undefined || n === null ? "" : count(n));
  const what = (n) => (n.error ? [n.error, "wrap bad"] : n.refused ? [`${count(n.refused)} refused`, "warn"] : n.waiting ? `${count(n.waiting)} waiting` : "");
  const head = [["Node"], ["Rows/s", "n"], ["In", "n"], ["Out", "n"], [""], ["Type"], ["From", "", "wrap"]]; // on a phone the first ones are seen
  $("flow").replaceChildren(...table(head, nodes.map((n) => [n.name, rate(n), number(n.rows_in), number(n.rows_out), what(n), `${n.type} ${n.kind}`, (n.inputs || []).join(", ")])));
  if (!before || at - before.at > 1000) before = { at, nodes };
}

async function delivery() {
  const { sinks } = await get("api/delivery");
  if (!sinks.length) return $("sent").replaceChildren(element("p", { class: "muted" }, "No sink of this pipeline sends anything elsewhere."));
  $("sent").replaceChildren(...sinks.map((s) => {
    const told = [];
    for (const [name, v] of Object.entries(s)) {
      if (name === "sink" || typeof v === "object" || v === "" || (v === 0 && name !== "waiting" && name !== "sent")) continue;
      const text = name === "bytes" ? size(v) : name === "retry_in" ? `${Math.ceil(v)} s` : value(v);
      const kind = /error|warning/.test(name) || (name === "state" && v === "retrying") ? "bad" : null;
      told.push(element("dt", {}, name.replaceAll("_", " ")), element("dd", { class: kind }, text));
    }
    return element("div", {}, element("h3", {}, s.sink), element("dl", {}, ...told));
  }));
}

async function health() {
  const told = await get("health");
  $("name").textContent = told.pipeline || "Headwater";
  const list = [["status", told.status], ["clock", told.clock === "sure" ? "set" : "not to be trusted"], ["running for", value(Math.round(told.uptime_seconds / 6) / 10) + " min"], ["steps", count(told.step)]];
  const parts = [element("dl", {}, ...list.flatMap(([name, v]) => [element("dt", {}, name), element("dd", { class: name === "status" ? (v === "ok" ? "good" : "bad") : null }, v)]))];
  if (told.reasons.length) parts.push(element("ul", {}, ...told.reasons.map((text) => element("li", { class: "bad" }, text))));
  $("health").replaceChildren(...parts);
  if (told.status === "ok") line("good", "● live"); else line("warn", "● " + told.status);
}

async function dead() {
  const letters = (await get("api/dead?limit=20")).dead;
  if (!letters.length) return $("dead").replaceChildren(element("p", { class: "muted" }, "None: every reading was taken."));
  const head = [["When"], ["Node"], ["Why", "", "wrap"], ["Row", "", "wrap"]];
  $("dead").replaceChildren(element("table", {}, ...table(head, letters.map((l) => [l.time ? clock(l.time) : "", l.node, l.reason, String(typeof l.row === "string" ? l.row : JSON.stringify(l.row)).slice(0, 200)]))));
}

async function look() {
  if (document.hidden || !$("ask").hidden) return;
  try {
    await Promise.all([health(), graph(), delivery(), dead(), alerts()]);
    if (!streams.length) await begin();
    trouble("");
    for (const [key, tile] of tiles) fill(tile, key); // "5 s ago" becomes "10 s ago"
  } catch (error) {
    if (!(error instanceof Refused)) unreachable();
  }
}

function unreachable() {
  line("bad", "○ unreachable");
  for (const [key, tile] of tiles) fill(tile, key); // "now" would no longer be true
  trouble(heard ? `The device does not answer. What you see is from ${clock(new Date(heard).toISOString())}; it is tried again every few seconds.`
    : "The device does not answer. It is tried again every few seconds.");
}

// --- what comes ---

async function listen() {
  if (live) live.abort();
  const own = (live = new AbortController());
  let wait = 1000;
  while (!own.signal.aborted) {
    try {
      const answer = await ask("api/live", { signal: own.signal, headers: lastId ? { "Last-Event-ID": lastId } : {} });
      if (!answer.ok) throw new Error(String(answer.status));
      await read(answer.body.getReader());
      wait = 1000;
    } catch (error) {
      if (own.signal.aborted || error instanceof Refused) return;
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 15000);
  }
}

async function read(reader) { // EventSource cannot send a token
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value: bytes } = await reader.read();
    if (done) return;
    heard = Date.now();
    rest += decoder.decode(bytes, { stream: true });
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      event(rest.slice(0, end));
      rest = rest.slice(end + 2);
    }
  }
}

function event(text) {
  let name = "message";
  let data = "";
  let id = null;
  for (const one of text.split("\n")) {
    if (one.startsWith("event: ")) name = one.slice(7);
    else if (one.startsWith("data: ")) data += one.slice(6);
    else if (one.startsWith("id: ")) id = one.slice(4);
  }
  if (name === "message" && data) {
    const told = JSON.parse(data);
    take(told.stream, told.rows);
  } else if (name === "missed") {
    refresh().then(() => chosen && load()).catch(() => {});
  }
  if (id !== null) lastId = id;
}

async function refresh() {
  const all = await Promise.all(streams.map((s) => get(`api/streams/${encodeURIComponent(s.name)}/latest`)));
  streams.forEach((s, i) => take(s.name, all[i].rows));
}

// --- the start ---

async function begin() {
  try {
    streams = (await get("api/streams")).streams;
  } catch (error) {
    if (!(error instanceof Refused)) unreachable();
    return;
  }
  rows = new Map(streams.map((s) => [s.name, new Map()]));
  $("ask").hidden = true;
  $("main").hidden = false;
  $("stream").replaceChildren(...streams.map((s) => element("option", { value: s.name }, s.name)));
  await refresh();
  const readings = streams.find((s) => s.role === "readings" && rows.get(s.name).size) || streams.find((s) => rows.get(s.name).size) || streams[0];
  if (readings) {
    $("stream").value = readings.name;
    show(readings.name);
    const first = [...tiles.keys()][0];
    if (first !== undefined) choose(readings.name, first);
  } else {
    $("nothing").hidden = false;
    $("nothing").textContent = "No stream of this pipeline is recorded.";
  }
  listen();
  await look();
  setTimeout(look, 1500); // rates need two looks
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) { if (live) live.abort(); } // a tab that nobody sees costs the device nothing
  else if ($("ask").hidden && streams.length) { listen(); look(); }
});
setInterval(look, POLL_MS);
begin();
