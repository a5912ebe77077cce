// Questions to the device: what any client could ask, with the token that somebody has typed in.
import { tell } from "./state.js";

export class Refused extends Error {} // a token is needed

let token = sessionStorage.getItem("token") || "";
let said = 0; // when the device said something, ms

export const heardAt = () => said;
export const isHeard = () => { said = Date.now(); };

export function take(text) {
  token = text;
  sessionStorage.setItem("token", token);
}

export async function ask(path, more = {}) {
  const headers = { ...more.headers };
  if (token) headers.Authorization = "Bearer " + token;
  const answer = await fetch(path, { cache: "no-store", ...more, headers });
  isHeard();
  if (answer.status === 401) {
    const again = Boolean(token);
    token = "";
    sessionStorage.removeItem("token");
    tell("locked", again);
    throw new Refused("a token is needed");
  }
  return answer;
}

export async function get(path) {
  const answer = await ask(path);
  const body = await answer.json();
  if (!answer.ok && path !== "health") throw new Error(body.detail || answer.statusText);
  return body;
}

export async function post(path, body) {
  const answer = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail || answer.statusText);
  return told;
}

export const part = encodeURIComponent;
