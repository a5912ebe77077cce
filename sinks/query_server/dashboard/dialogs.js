// The one dialog of the page, and what people say in it: seen, and be quiet. Esc closes it, and the focus goes back.
import { post } from "./ask.js";
import { tell } from "./state.js";
import { $, button, element } from "./write.js";

const LENGTHS = ["15 min", "1 h", "4 h", "12 h", "1 d", "7 d"];

const dialog = $("dialog");
let closing = null;

export function open(title, ...content) {
  $("dialog-title").textContent = title;
  $("dialog-body").replaceChildren(...content.filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

export const close = () => dialog.close();
export const whenClosed = (then) => { closing = then; };

dialog.addEventListener("close", () => {
  $("dialog-body").replaceChildren();
  if (closing) closing();
  closing = null;
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); }); // beside it
$("dialog-close").addEventListener("click", close);

function form(title, intro, fields, done, send) {
  const wrong = element("p", { class: "banner", role: "alert", hidden: "" });
  const made = element("form", { class: "form", onsubmit: async (event) => {
    event.preventDefault();
    const said = Object.fromEntries([...new FormData(made)].map(([name, text]) => [name, text.trim()]));
    try {
      if (said.by) sessionStorage.setItem("by", said.by);
      await send(said);
      close();
      tell("look");
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = `It could not be done: ${error.message}`;
    }
  } }, element("p", {}, intro), ...fields, wrong, element("div", { class: "row" }, element("button", {}, done), button("Cancel", close)));
  open(title, made);
  (made.querySelector("input:placeholder-shown") || made.querySelector("select, input, button")).focus();
}

const field = (label, input) => element("label", {}, label, input);
const by = () => field("Your name", element("input", { name: "by", required: "", maxlength: 100, autocomplete: "name", placeholder: " ", value: sessionStorage.getItem("by") || null }));
const note = () => field("Note", element("input", { name: "note", maxlength: 1000, autocomplete: "off", placeholder: "such as: on my way" }));

export function acknowledge(one) {
  form("Acknowledge", `${one.message || one.alert}. Everyone sees who has taken care of it; nothing else changes.`, [by(), note()], "Acknowledge",
    (said) => post(`api/alerts/${one.id}/acknowledge`, said));
}

export function silence(alert, key) {
  const whose = element("select", { name: "key" }, key ? element("option", { value: "this" }, `only ${key}`) : null, element("option", { value: "" }, "every key"));
  const length = element("select", { name: "for" }, ...LENGTHS.map((text) => element("option", { value: text, selected: text === "1 h" ? "" : null }, text)));
  form(`Silence ${alert}`, "Its rows are recorded, but sent to nobody, and not sent later.", [field("For", length), field("Of", whose), by(), note()], "Silence",
    (said) => post("api/alerts/silence", { ...said, alert, key: said.key ? key : null }));
}

export function forget(key) {
  form(`Forget ${key}`, "For a key that is gone for good: what fires for it is over, nothing waits for it any more, and it is no longer shown. Its history stays; if it is heard again, it begins anew.", [], "Forget it",
    async () => { await post("api/keys/forget", { key }); tell("forgotten", key); });
}

export const endSilence = (one) => post("api/alerts/silence", { alert: one.alert, key: one.key, for: "0 s", by: sessionStorage.getItem("by") || "the dashboard" });
