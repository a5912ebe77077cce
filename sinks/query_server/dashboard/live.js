// Rows as they become durable. EventSource cannot send a token, so the events are read here.
import { ask, isHeard, Refused } from "./ask.js";
import { tell } from "./state.js";

let live = null; // what ends the stream of events
let lastId = ""; // of the last event

export const hush = () => { if (live) live.abort(); };

export async function listen() {
  hush();
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

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value: bytes } = await reader.read();
    if (done) return;
    isHeard();
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
    tell("came", told.stream, told.rows);
  } else if (name === "missed") {
    tell("missed");
  }
  if (id !== null) lastId = id;
}
