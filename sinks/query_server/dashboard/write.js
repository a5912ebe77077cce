// How things are written: elements, numbers, times, tables. Text from the device only ever becomes text, never HTML.

export const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") { if (value) made.className = value; }
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (text, click, more = {}) => element("button", { class: "quiet", type: "button", onclick: click, ...more }, text);
export const muted = (text) => element("p", { class: "muted" }, text);

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// New children only where they say something new: the focus stays where it is, and a screen reader is left in peace.
export function fill(node, ...children) {
  const made = element(node.tagName, {}, ...children);
  if (made.innerHTML !== node.innerHTML) node.replaceChildren(...made.childNodes);
}

export const seconds = (text) => Date.parse(text) / 1000;
export const count = (n) => Number(n || 0).toLocaleString("en");

export function value(v) {
  if (v === null || v === undefined) return "–";
  if (typeof v === "number") {
    if (Number.isInteger(v)) return Math.abs(v) < 1e15 ? v.toLocaleString("en") : v.toExponential(4);
    const size = Math.abs(v);
    return size !== 0 && (size < 1e-3 || size >= 1e9) ? v.toExponential(3)
      : v.toLocaleString("en", { maximumFractionDigits: size < 1 ? 4 : size < 100 ? 2 : 1 });
  }
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (typeof v === "string" && /^\d{4}-\d\d-\d\dT.*Z$/.test(v)) return clock(v);
  return String(v);
}

export function clock(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}

export function ago(text) {
  const s = Math.max(0, Date.now() / 1000 - seconds(text));
  return s < 5 ? "now" : span(s) + " ago";
}

export function span(s) {
  for (const [unit, size, most] of [["s", 1, 90], ["min", 60, 5400], ["h", 3600, 129600]]) if (s < most) return `${Math.round(s / size)} ${unit}`;
  return s < 63e6 ? `${Math.round(s / 86400)} d` : `${Math.round(s / 31557600)} years`;
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; bytes >= 1000 && i < units.length - 1; i++) bytes /= 1000;
  return `${value(Math.round(bytes * 10) / 10)} ${units[i]}`;
}

// A sentence of the device: `code` is set as code, times as they are told here.
export function sentence(text) {
  return text.split("`").map((piece, i) => {
    if (i % 2) return element("code", {}, piece);
    return piece.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, clock);
  });
}

export function facts(...pairs) {
  const told = pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "");
  return element("dl", {}, ...told.flatMap(([name, text, kind]) => [element("dt", {}, name), element("dd", { class: kind }, text)]));
}

// head: [title, "n" for numbers, class of its cells]; a cell is its text, or [text, class]
export function table(head, body) {
  const cell = (content, i, name) => {
    const [text, kind] = Array.isArray(content) ? content : [content, name === "td" ? head[i][2] || "" : ""];
    return element(name, { class: `${head[i][1] || ""} ${kind || ""}`.trim(), ...(name === "th" ? { scope: "col" } : {}) }, text);
  };
  const line = (cells, name) => element("tr", {}, ...cells.map((content, i) => cell(content, i, name)));
  return element("table", {}, element("thead", {}, line(head.map((h) => [h[0]]), "th")),
    element("tbody", {}, ...body.map((cells) => line(cells, "td"))));
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function line(kind, text) {
  set($("line"), text);
  $("line").className = "pill " + kind;
}

export function trouble(text) {
  $("trouble").hidden = !text;
  set($("trouble"), text);
}
