// The newest row of each key, as tiles. Those that fire stand first.
import { isNumber, it, on, streamOf, tell } from "./state.js";
import { $, ago, element, set, value } from "./write.js";

const FEW = innerWidth < 700 ? 12 : 42; // as long as nobody asks for more: the chart should not be far below

const tiles = new Map();
let all = false; // more than FEW of them

const alarmOf = (stream, key) => (stream.key === null ? undefined : it.firing.find((one) => one.key === key));

export function layTiles() {
  const stream = streamOf(it.shown);
  if (!stream) return;
  const latest = it.rows.get(it.shown);
  const wanted = $("find").value.trim().toLowerCase();
  const alarms = new Set(stream.key === null ? [] : it.firing.map((one) => one.key));
  let keys = [...latest.keys()].filter((key) => key.toLowerCase().includes(wanted))
    .sort((a, b) => alarms.has(b) - alarms.has(a) || a.localeCompare(b, "en", { numeric: true }));
  const found = keys.length;
  if (!all) keys = keys.slice(0, FEW);
  $("find-box").hidden = latest.size < 9;
  $("more").hidden = keys.length === found;
  set($("more"), `Show all ${found}`);
  $("nothing").hidden = found > 0;
  set($("nothing"), latest.size ? "No key contains that." : "No rows yet. They appear here as soon as they come.");
  const kept = new Set(keys);
  for (const [key, tile] of tiles) if (!kept.has(key)) { tile.item.remove(); tiles.delete(key); }
  const focused = document.activeElement;
  keys.forEach((key, i) => {
    let tile = tiles.get(key);
    if (!tile) tiles.set(key, (tile = newTile(key)));
    if ($("tiles").children[i] !== tile.item) $("tiles").insertBefore(tile.item, $("tiles").children[i] || null);
    fillTile(tile, key);
  });
  if (focused !== document.activeElement && $("tiles").contains(focused)) focused.focus({ preventScroll: true });
}

function newTile(key) {
  const span = (kind) => element("span", { class: kind });
  const parts = { key: span("key"), value: span("value"), more: span("more"), time: span("more") };
  const button = element("button", { class: "tile", type: "button", onclick: () => tell("choose", it.shown, key, true) }, ...Object.values(parts));
  return { ...parts, button, item: element("li", {}, button) };
}

function fillTile(tile, key) {
  const stream = streamOf(it.shown);
  const row = it.rows.get(it.shown).get(key);
  const names = Object.keys(stream.fields).filter((name) => name in row);
  const main = names.find((name) => isNumber(stream.fields[name])) || names[0];
  const alarm = alarmOf(stream, key);
  set(tile.key, key || stream.name);
  set(tile.value, value(row[main]));
  set(tile.more, names.filter((name) => name !== main && row[name] !== null).map((name) => `${name} ${value(row[name])}`).join(" · ") || main);
  set(tile.time, (alarm ? "⚠ firing · " : "") + ago(row.time));
  tile.time.className = alarm ? "more mark" : "more";
  tile.button.title = key;
  tile.button.classList.toggle("firing", Boolean(alarm));
  tile.button.setAttribute("aria-pressed", Boolean(it.chosen && it.chosen.stream === it.shown && it.chosen.key === key));
}

export function refill(keys = tiles.keys()) { // "5 s ago" becomes "10 s ago"; true: a key is not there yet
  let isNew = false;
  for (const key of keys) {
    if (tiles.has(key)) fillTile(tiles.get(key), key);
    else isNew = true;
  }
  return isNew;
}

export function show(name) {
  it.shown = name;
  all = false;
  for (const tile of tiles.values()) tile.item.remove();
  tiles.clear();
  layTiles();
}

export const first = () => [...tiles.keys()][0];

$("stream").addEventListener("change", () => {
  show($("stream").value);
  if (first() !== undefined) tell("choose", it.shown, first());
});
$("find").addEventListener("input", layTiles);
$("more").addEventListener("click", () => { all = true; layTiles(); });
on("chosen", () => refill());
on("alerts", layTiles);
