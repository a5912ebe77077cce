// The pipeline itself: graph with rates, delivery, health with the flash budget, dead letters.
import { get, post } from "./ask.js";
import { picture } from "./graph.js";
import { it, tell } from "./state.js";
import { $, button, clock, count, element, facts, fill, line, muted, seconds, size, span, table, trouble, value } from "./write.js";

const LETTERS = 100; // the newest; of these the page shows
const LISTED = 20;

let before = null; // {at, nodes}: counts of the last look at the graph

export async function graph() {
  const { nodes } = await get("api/graph");
  const at = Date.now();
  it.nodes = nodes;
  const told = nodes.map((node) => ({ ...node, rate: rate(node, at), dead: it.letters.filter((letter) => letter.node === node.name).length }));
  const dead = (node) => (node.dead ? `${node.dead === LETTERS ? "over " : ""}${node.dead} dead letters` : "");
  const what = (node) => (node.error ? [node.error, "wrap bad"] : node.refused ? [`${count(node.refused)} refused`, "warn"]
    : node.dead ? [dead(node), "warn"] : node.waiting ? `${count(node.waiting)} waiting` : "");
  const number = (n) => (n === undefined || n === null ? "" : count(n));
  const head = [["Node"], ["Rows/s", "n"], ["In", "n"], ["Out", "n"], [""], ["Type"], ["From", "", "wrap"]]; // on a phone the first ones are seen
  fill($("flow"), table(head, told.map((n) => [n.name, n.rate, number(n.rows_in), number(n.rows_out), what(n), `${n.type} ${n.kind}`, (n.inputs || []).join(", ")])));
  picture($("picture"), told);
  if (!before || at - before.at > 1000) before = { at, nodes };
}

const total = (node) => node.rows_out ?? node.rows_in;

function rate(node, at) {
  const had = before && before.nodes.find((n) => n.name === node.name);
  if (!had || total(node) === undefined || total(node) < total(had)) return "";
  return value(Math.round(((total(node) - total(had)) / (at - before.at)) * 10000) / 10);
}

function asRows(is) {
  $("as-rows").setAttribute("aria-pressed", is);
  $("flow").hidden = !is;
  $("picture").hidden = is;
}
$("as-rows").addEventListener("click", () => asRows($("as-rows").getAttribute("aria-pressed") !== "true"));
asRows(innerWidth < 700); // a phone shows two nodes of a picture, and most columns of the table

export async function delivery() {
  const { sinks } = await get("api/delivery");
  fill($("sent"), ...(sinks.length ? sinks.map(sink) : [muted("No sink of this pipeline sends anything elsewhere.")]));
}

function sink(s) {
  const some = (name, n, kind) => (n ? [name, count(n), kind] : null);
  return element("div", {}, element("h3", {}, s.sink), facts(
    ["state", s.state, s.state === "retrying" ? "bad" : s.state === "catching up" ? "warn" : "good"],
    s.retry_in === null || s.retry_in === undefined ? null : ["tries again in", `${Math.ceil(s.retry_in)} s, after ${s.attempts} failures`],
    ["last error", s.last_error, "bad"], ["warning", s.warning, "bad"],
    ["waiting", s.waiting ? `${count(s.waiting)} rows, ${size(s.bytes)}` : "nothing"],
    s.oldest ? ["oldest", clock(s.oldest)] : null,
    some("left by an outage", s.backlog), ["sent", count(s.sent)], some("refused there", s.failed, "warn"),
    some("silenced", s.silenced), some("thinned out", s.thinned, "warn"), some("dropped", s.dropped, "bad")));
}

export async function health() {
  const told = await get("health");
  $("name").textContent = told.pipeline || "Headwater";
  const fine = told.status === "ok";
  const flash = told.flash;
  fill($("health"), facts(["status", told.status, fine ? "good" : "bad"], ["clock", told.clock === "sure" ? "set" : "not to be trusted", told.clock === "sure" ? null : "warn"],
    ["running for", span(told.uptime_seconds)], ["steps", count(told.step)],
    ...(flash ? [["flash written", `${size(flash.written_bytes)}${flash.since ? ` since ${clock(flash.since)}` : ""}`],
      ["now a day", flash.per_day_bytes === null || flash.per_day_bytes === undefined ? "known in a minute" : size(flash.per_day_bytes)],
      flash.endurance_bytes ? ["budget", budget(flash), isShort(flash) ? "bad" : null] : null] : [])),
  ...(told.reasons.length ? [element("ul", {}, ...told.reasons.map((text) => element("li", { class: "bad" }, text)))] : []));
  if (fine) line("good", "● live"); else line("warn", "● " + told.status);
}

const left = (flash) => (flash.used_up ? seconds(flash.used_up) - Date.now() / 1000 : Infinity);
const isShort = (flash) => left(flash) < 3 * 31557600; // a device should outlive that

function budget(flash) {
  const used = value(Math.round((flash.written_bytes / flash.endurance_bytes) * 1000) / 10);
  return `${used} % of ${size(flash.endurance_bytes)} used; ${flash.used_up ? `lasts ${span(Math.max(0, left(flash)))} at this rate` : "lasts longer than the device"}`;
}

export async function dead() {
  it.letters = (await get(`api/dead?limit=${LETTERS}`)).dead;
  if (!it.letters.length) return fill($("dead"), muted("None: every reading was taken."));
  const text = (row) => String(typeof row === "string" ? row : JSON.stringify(row)).slice(0, 200);
  const made = table([["When"], ["Node"], ["Why", "", "wrap"], ["Row", "", "wrap"], [""]],
    it.letters.slice(0, LISTED).map((l) => [clock(l.time), l.node, l.reason, text(l.row), l.replayable ? button("Try again", () => {}, { "data-letter": l.id, "aria-label": `Try again: letter ${l.id} of ${l.node}` }) : ""]));
  const rest = it.letters.length > LISTED ? muted(`The newest ${LISTED} of ${it.letters.length === LETTERS ? `more than ${LETTERS}` : it.letters.length}: api/dead has the others.`) : null;
  return fill($("dead"), made, rest);
}

$("dead").addEventListener("click", async (event) => {
  const id = Number(event.target.dataset?.letter);
  if (!id) return;
  try {
    const told = await post("api/dead/replay", { ids: [id] });
    trouble(told.failed.length ? `Letter ${id} was tried and stays: ${told.failed[0].reason}` : "");
    tell("look");
  } catch (error) {
    trouble("It could not be tried again: " + error.message);
  }
});
