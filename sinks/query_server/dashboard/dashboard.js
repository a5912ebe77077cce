// The dashboard: asks the device what any client could ask. No build step; uPlot is the only thing that is not ours.
import { alerts, lookAgain, lookSoon, ofChosen } from "./alerts.js";
import { get, heardAt, part, Refused, take as takeToken } from "./ask.js";
import { choose, draw, load, more } from "./chart.js";
import { hush, listen } from "./live.js";
import { dead, delivery, graph, health } from "./pipeline.js";
import { it, keyOf, on, streamOf } from "./state.js";
import { first, layTiles, refill, show } from "./tiles.js";
import { $, clock, element, line, trouble } from "./write.js";

const POLL_MS = 5000;
const PAINT_MS = 250; // four times a second is enough for eyes, and for a phone's battery

const changed = new Set(); // keys whose tile says something else now
let isGone = false; // the device does not answer
let isDrawn = true; // the chart shows what there is

// --- a token ---

on("locked", (again) => {
  hush();
  $("main").hidden = true;
  $("ask").hidden = false;
  line("warn", again ? "wrong token" : "locked");
  $("token").focus();
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  takeToken($("token").value.trim());
  $("token").value = "";
  $("ask").hidden = true;
  begin();
});

// --- rows come ---

function take(name, found) {
  const stream = streamOf(name);
  if (!stream) return;
  const latest = it.rows.get(name);
  for (const row of found) {
    const key = keyOf(stream, row);
    const had = latest.get(key);
    if (had && had.time > row.time) continue;
    latest.set(key, row);
    if (name === it.shown) changed.add(key);
  }
  if (more(name, found)) isDrawn = false;
  if (stream.role === "alerts") lookSoon();
  paint();
}

let painting = false;
function paint() {
  if (painting || document.hidden) return;
  painting = true;
  setTimeout(() => requestAnimationFrame(() => {
    painting = false;
    if (!isDrawn) draw();
    isDrawn = true;
    if (refill(changed)) layTiles();
    changed.clear();
  }), PAINT_MS);
}

async function refresh() {
  const all = await Promise.all(it.streams.map((s) => get(`api/streams/${part(s.name)}/latest`)));
  it.streams.forEach((s, i) => take(s.name, all[i].rows));
}

on("came", take);
on("missed", () => refresh().then(load).catch(() => {}));

on("forgotten", (key) => {
  for (const latest of it.rows.values()) latest.delete(key);
  layTiles();
  if (!it.chosen || it.chosen.key !== key) return;
  if (first() !== undefined) choose(it.shown, first());
  else $("history").hidden = true;
});

// --- a look at everything else, now and then ---

async function look() {
  if (document.hidden || !$("ask").hidden) return;
  try {
    await Promise.all([health(), dead().then(graph), delivery(), alerts()]);
    if (!it.streams.length) await begin();
    if (isGone) trouble(""); // what an action has told stays
    isGone = false;
    refill();
    await lookAgain();
  } catch (error) {
    if (!(error instanceof Refused)) unreachable();
  }
}

function unreachable() {
  isGone = true;
  line("bad", "○ unreachable");
  refill(); // "now" would no longer be true
  trouble(heardAt() ? `The device does not answer. What you see is from ${clock(new Date(heardAt()).toISOString())}; it is tried again every few seconds.`
    : "The device does not answer. It is tried again every few seconds.");
}

on("look", look);

// --- the start ---

async function begin() {
  try {
    it.streams = (await get("api/streams")).streams;
  } catch (error) {
    if (!(error instanceof Refused)) unreachable();
    return;
  }
  it.rows = new Map(it.streams.map((s) => [s.name, new Map()]));
  $("ask").hidden = true;
  $("main").hidden = false;
  $("stream").replaceChildren(...it.streams.map((s) => element("option", { value: s.name }, s.name)));
  try {
    await refresh();
  } catch (error) {
    if (!(error instanceof Refused)) unreachable();
    return;
  }
  const told = (s) => it.rows.get(s.name).size;
  const stream = it.streams.find((s) => s.role === "readings" && told(s)) || it.streams.find(told) || it.streams[0];
  if (stream) {
    $("stream").value = stream.name;
    show(stream.name);
    if (first() !== undefined) choose(stream.name, first());
  } else {
    $("nothing").hidden = false;
    $("nothing").textContent = "No stream of this pipeline is recorded.";
  }
  listen();
  await look();
  ofChosen();
  setTimeout(look, 1500); // rates need two looks
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return hush(); // a tab that nobody sees costs the device nothing
  if ($("ask").hidden && it.streams.length) { listen(); look(); }
});
setInterval(look, POLL_MS);
begin();
