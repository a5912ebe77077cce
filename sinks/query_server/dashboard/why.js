// Why an alert fires, and why it does not: readings, conditions, limits and times, in words.
import { get, part as quoted } from "./ask.js";
import { acknowledge, open, silence, whenClosed } from "./dialogs.js";
import { limit, plotted } from "./plot.js";
import { button, clock, count, element, facts, muted, seconds, sentence, table, trouble, value } from "./write.js";

const LISTED = 100; // readings

export async function why(one) {
  let told;
  try {
    told = await get(`api/alerts/${one.id}/why`);
  } catch (error) {
    return trouble("It could not be asked why: " + error.message);
  }
  const { alert, operator, readings } = told;
  const delivery = Object.entries(alert.delivery || {}).map(([sink, fate]) => `${sink}: ${fate}`).join(", ");
  const seen = alert.acknowledged;
  const levels = operator ? operator.levels.filter((level) => level.when.is || operator.levels.length === 1 || level.level === alert.level) : [];
  const picture = element("div", { class: "picture" });
  open(`Why ${alert.alert} ${alert.state === "firing" ? "fires" : "fired"}${alert.key ? ` for ${alert.key}` : ""}`,
    element("p", { class: "lead" }, alert.message || `${alert.level}: ${alert.alert}`),
    ...levels.map((level) => conditions(level, "was")),
    operator && operator.silence && !levels.length ? element("p", {}, `Nothing came from it for ${operator.silence.silent_for}.`) : null,
    picture,
    facts(["Level", alert.level], ["Began to hold", clock(alert.since)], ["Raised", clock(alert.time)], ...more(operator || {}),
      ["Seen by", seen ? `${seen.by}, ${clock(seen.time)}${seen.note ? `: ${seen.note}` : ""}` : "nobody yet"],
      ["Silenced", alert.silenced ? quiet(alert.silenced) : null], ["Sent", delivery || null]),
    told.hint ? muted(told.hint) : null,
    listed(readings, "Readings that led to it"),
    element("div", { class: "row" }, seen ? null : button("Acknowledge", () => acknowledge(one)), alert.silenced ? null : button("Silence", () => silence(one.alert, one.key))));
  await draw(picture, levels, readings, alert);
}

export function whyNot(told) {
  open(`Why ${told.alert} does not fire${told.key ? ` for ${told.key}` : ""}`,
    element("p", { class: "lead" }, ...sentence(told.because)),
    ...told.levels.map((level) => conditions(level, "is")),
    facts(...more(told), ["Newest reading", told.reading ? clock(told.reading.time) : "none is recorded"], ["Silenced", told.silenced ? quiet(told.silenced) : null]),
    told.hint ? muted(told.hint) : null,
    told.reading ? listed([told.reading], "The reading that this is about") : null,
    element("div", { class: "row" }, told.silenced ? null : button("Silence", () => silence(told.alert, told.key))));
}

const quiet = (one) => `until ${clock(one.until)}, by ${one.by}${one.note ? `: ${one.note}` : ""}`;

// --- conditions ---

function conditions(level, was) {
  const holds = level.when.is;
  const list = element("ul", { class: "parts" }, ...level.when.parts.map((part) => spoken(part, was)));
  const times = [
    level.for !== "0 s" ? `It must hold for ${level.for} before it is raised.` : "",
    level.state === "waits" && level.until ? `If it goes on, that is at ${clock(level.until)}.` : "",
    level.clear ? "" : "It is over when that no longer holds.",
    level.keep !== "0 s" ? `It stays for at least ${level.keep}.` : "",
  ].filter(Boolean).join(" ");
  const over = level.clear ? element("p", {}, "It is over when ", element("code", {}, level.clear.text), was === "was" ? `; that was ${level.clear.is ? "" : "not "}so.` : ".") : null;
  return element("section", { class: "level-of" },
    element("h3", {}, `${level.level}: raised when `, element("code", {}, level.when.text)),
    element("p", { class: holds ? "bad" : "good" }, holds === null ? "Unknown: a value is missing." : holds ? `That ${was} so:` : `That ${was} not so:`),
    list, over, times ? element("p", {}, times) : null);
}

// "temperature was 36.9: 6.9 above the limit of 30"
function spoken(part, was) {
  const met = part.is === null || part.is === undefined ? null : part.is === part.wanted;
  const [mark, kind] = met === null ? ["?", "warn"] : met ? ["●", "bad"] : ["○", "good"];
  const text = element("span", {});
  const sides = /^(.*?)\s*(?:[<>]=?|[!=]=)\s*(.*)$/.exec(part.text);
  if (sides && part.distance !== null && part.distance !== undefined) {
    const where = part.left > part.right ? "above" : part.left < part.right ? "below" : null;
    const plain = Number.isFinite(Number(sides[2]));
    text.append(element("b", {}, sides[1]), ` ${was} `, element("b", {}, value(part.left)),
      where ? `: ${value(part.distance)} ${where} ` : ": just at ", plain ? "the limit of " : "", element("b", {}, plain ? value(part.right) : `${sides[2]} (${value(part.right)})`));
  } else {
    text.append(element("code", {}, part.text), part.is === null ? ` had no answer: a value is missing` : ` ${was} ${part.is ? "true" : "false"}`);
  }
  if (!part.wanted) text.append(` (must not be)`);
  return element("li", {}, element("span", { class: kind, "aria-hidden": "true" }, mark), text);
}

function more(told) {
  return [
    ["Reminds every", told.repeat],
    ["Silent for", told.silence ? `${told.silence.silent_for}${told.silence.heard ? `; last heard ${clock(told.silence.heard)}` : ""}` : null],
    ["Held back by", told.inhibit ? held(told.inhibit) : null],
    ["Flapping", told.flapping ? `at most ${told.flapping.changes} changes within ${told.flapping.within}` : null],
  ];
}

const held = (inhibit) => (Array.isArray(inhibit) ? inhibit.join(", ") : Object.entries(inhibit).map(([name, fires]) => `${name} (${fires ? "fires" : "quiet"})`).join(", "));

// --- readings ---

function listed(readings, title) {
  if (!readings.length) return null;
  const names = [...new Set(readings.flatMap((row) => Object.keys(row)))].filter((name) => name !== "time" && name !== "stream");
  const some = readings.slice(-LISTED).reverse();
  const body = some.map((row) => [clock(row.time), ...names.map((name) => value(row[name]))]);
  const all = readings.length > some.length ? `, the last ${LISTED} of ${count(readings.length)}` : ` (${readings.length})`;
  return element("details", { open: readings.length < 6 ? "" : null }, element("summary", {}, title + all),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, table([["Time"], ...names.map((name) => [name, typeof some[0][name] === "number" ? "n" : ""])], body)));
}

// What the key said around then: a while before, to the moment it was raised, and a while after.
async function draw(box, levels, readings, alert) {
  const lines = levels.flatMap((level) => level.when.parts.map((part) => limit(part, level.level))).filter(Boolean);
  const last = readings[readings.length - 1];
  const field = last && lines.map((one) => one.field).find((name) => typeof last[name] === "number");
  if (!field) return box.remove();
  const [since, raised] = [seconds(alert.since), Math.max(seconds(alert.time), seconds(last.time))];
  const beside = Math.max(300, 3 * (raised - since));
  const key = alert.key ? `&key=${quoted(alert.key)}` : "";
  let rows;
  try {
    rows = (await get(`api/streams/${quoted(last.stream)}/rows?from=${since - beside}&to=${raised + beside}${key}&points=400&fields=${quoted(field)}`)).rows;
  } catch {
    rows = readings;
  }
  if (rows.length < 2 || !box.isConnected) return box.remove();
  const data = [rows.map((row) => seconds(row.time)), rows.map((row) => row[field] ?? null)];
  const label = `Chart of ${field}, and its limits, before and after the alert was raised.`;
  const plot = plotted(box, { label, field, data, bands: () => [[since, raised]], lines: () => lines.filter((one) => one.field === field), height: 190, fit: true, zoom: false });
  box.append(muted("Shaded: from when the condition began to hold until the alert was raised."));
  whenClosed(() => plot.destroy());
}
