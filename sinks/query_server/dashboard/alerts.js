// What fires, what is silenced, and how the alerts of the chosen key stand.
import { get, part } from "./ask.js";
import { acknowledge, endSilence, silence } from "./dialogs.js";
import { it, on, tell } from "./state.js";
import { why, whyNot } from "./why.js";
import { $, button, clock, element, sentence, trouble } from "./write.js";

const LISTED = 20;
const LOOK_AGAIN_MS = 30000; // at what the alerts of the chosen key wait for

let looking = null;
export function lookSoon() {
  looking = looking || setTimeout(async () => {
    looking = null;
    try {
      await alerts();
      await ofChosen();
    } catch { /* the next look tells */ }
  }, 300);
}

let shown = "";
export async function alerts() {
  const told = await get(`api/alerts?state=firing&limit=1000`);
  const total = told.total ?? told.alerts.length;
  it.firing = told.alerts;
  document.title = (total ? `(${total}) ` : "") + $("name").textContent;
  const now = JSON.stringify([told.alerts, told.silences]);
  if (now === shown) return; // the focus stays where it is
  shown = now;
  $("alarms").hidden = !total;
  $("alarms-title").textContent = total > 1 ? `Firing now: ${total}` : "Firing now";
  keepFocus($("firing"), told.alerts.slice(0, LISTED).map(alarm));
  if (total > LISTED) $("firing").append(element("li", { class: "rest" }, `… and ${total - LISTED} more: api/alerts?state=firing`));
  $("quiet").hidden = !told.silences.length;
  keepFocus($("silences"), told.silences.map(silenced));
  tell("alerts");
}

// A list made anew: whoever was on a button of it is on the same one again.
function keepFocus(list, items) {
  const id = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  list.replaceChildren(...items);
  if (id) [...list.querySelectorAll("button")].find((one) => one.dataset.id === id)?.focus({ preventScroll: true });
}

function alarm(one) {
  const name = one.key || one.alert;
  const act = (what, text, click) => button(text, click, { "data-id": `${what} ${one.id}`, "aria-label": `${text.replace("?", "")}: ${one.alert} ${one.key}` });
  const notes = [one.acknowledged ? `seen by ${one.acknowledged.by}${one.acknowledged.note ? `: ${one.acknowledged.note}` : ""}` : null,
    one.silenced ? `silenced until ${clock(one.silenced.until)}` : null].filter(Boolean);
  return element("li", {},
    element("span", { class: "level" }, "⚠ " + (one.level || "firing")),
    element("span", { class: "what" }, one.message || `${one.alert} ${name}`),
    element("span", { class: "muted" }, [`${one.key ? one.key + " · " : ""}since ${clock(one.since || one.time)}`, ...notes].join(" · ")),
    element("span", { class: "acts" }, act("why", "Why?", () => why(one)),
      one.acknowledged ? null : act("seen", "Acknowledge", () => acknowledge(one)),
      one.silenced ? null : act("quiet", "Silence", () => silence(one.alert, one.key))));
}

function silenced(one) {
  const end = async () => {
    try { await endSilence(one); tell("look"); } catch (error) { trouble("The silence could not be ended: " + error.message); }
  };
  const whose = `${one.alert}${one.key ? ` of ${one.key}` : ", every key"}`;
  return element("li", {}, element("span", { class: "what" }, element("b", {}, whose), ` until ${clock(one.until)}, by ${one.by}${one.note ? `: ${one.note}` : ""}`),
    button("End", end, { "data-id": `end ${whose}`, "aria-label": `End the silence of ${whose}` }));
}

// --- of the chosen key ---

let lookedAt = 0;
export async function ofChosen() {
  const asked = it.chosen;
  lookedAt = Date.now();
  const names = it.nodes ? it.nodes.filter((node) => node.type === "alert").map((node) => node.name) : [];
  const found = [];
  for (const name of asked ? names : []) {
    try {
      const told = await get(`api/alerts/why-not?alert=${part(name)}${asked.key ? `&key=${part(asked.key)}` : ""}`);
      if (told.firing || told.reading) found.push(told); // others are about other streams
    } catch { /* not of this key, or a device that does not say */ }
  }
  if (asked !== it.chosen) return;
  $("standing").hidden = !found.length;
  keepFocus($("standing-list"), found.map((told) => standing(told, asked.key)));
  tell("explained", found);
}

function standing(told, key) {
  const one = it.firing.find((alert) => alert.alert === told.alert && alert.key === (key || ""));
  const waits = told.levels.some((level) => level.state === "waits");
  const [kind, state] = told.firing ? ["bad", "⚠ firing"] : waits ? ["warn", "waiting"] : ["good", "✓ quiet"];
  const look = told.firing && one ? () => why(one) : () => whyNot(told);
  return element("li", {}, element("b", {}, told.alert), element("span", { class: kind }, state),
    element("span", { class: "what" }, ...sentence(told.because)),
    element("span", { class: "acts" },
      button(told.firing ? "Why?" : "Why not?", look, { "data-id": `look ${told.alert}`, "aria-label": `${told.firing ? "Why" : "Why not"}: ${told.alert} ${key}` }),
      told.silenced ? element("span", { class: "muted" }, `silenced until ${clock(told.silenced.until)}`)
        : button("Silence", () => silence(told.alert, key), { "data-id": `quiet ${told.alert}`, "aria-label": `Silence: ${told.alert} ${key}` })));
}

export const lookAgain = () => (Date.now() - lookedAt > LOOK_AGAIN_MS ? ofChosen() : null);

on("chosen", () => { $("standing").hidden = true; if (it.nodes) ofChosen(); });
on("look", () => { shown = ""; ofChosen(); });
