// What the parts of the page share, and how one tells the others that it has changed.

export const it = {
  streams: [], // as /api/streams tells them
  rows: new Map(), // stream -> key -> its newest row
  shown: null, // the stream of the tiles
  chosen: null, // {stream, key}: what the chart shows
  firing: [], // alerts
  letters: [], // dead ones, the newest
};

const heard = new Map(); // what -> who wants to know

export function on(what, then) {
  heard.set(what, [...(heard.get(what) || []), then]);
}

export function tell(what, ...more) {
  for (const then of heard.get(what) || []) then(...more);
}

export const streamOf = (name) => it.streams.find((stream) => stream.name === name);
export const keyOf = (stream, row) => (stream.key ? String(row[stream.key]) : "");
export const isNumber = (kind) => /^(float|int)/.test(kind);
