"""Every table of the state folder's one database, `headwater.db`, and the number of its format."""

FORMAT = 1

TABLES = """
-- single facts: format, the text of the pipeline file that the journal was written with
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;

-- the key table: codes never change
CREATE TABLE keys (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- the journal: what came from outside in each step since the checkpoint
CREATE TABLE steps (step INTEGER PRIMARY KEY, entry BLOB NOT NULL);

-- Frames as bytes: a live source's, needed by the journal until the checkpoint has passed their step,
-- and those of recorded streams, needed by the history until retention drops them. first, last: event time, ns
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    step INTEGER NOT NULL,
    stream TEXT NOT NULL,
    journal INTEGER NOT NULL,   -- 1: the journal reads it
    history INTEGER NOT NULL,   -- 1: the history reads it
    rows INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX frames_by_stream ON frames (stream, last, first, rows) WHERE history;
CREATE INDEX frames_by_step ON frames (step) WHERE journal;

-- the checkpoint: the state of each node after one step
CREATE TABLE checkpoint (node TEXT PRIMARY KEY, step INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;

-- how far each source's input is durable
CREATE TABLE positions (source TEXT PRIMARY KEY, position BLOB) WITHOUT ROWID;

-- answers given to requests with an Idempotency-Key
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    request TEXT NOT NULL,
    clock INTEGER NOT NULL,
    receipt BLOB NOT NULL,
    UNIQUE (source, request)
);

-- how long each file that a sink writes was at the last commit: what is beyond was not committed
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;

-- rows that wait for a delivering sink, a Frame a row of the table
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    stream TEXT NOT NULL,
    keep INTEGER NOT NULL,      -- 1: never dropped to make room
    rows INTEGER NOT NULL,
    clock INTEGER NOT NULL,     -- when it was put here, ns
    data BLOB NOT NULL
);
CREATE INDEX outbox_by_sink ON outbox (sink, id);

-- the bounds of a batch, written before its first try: [first_id:first_row, last_id:last_row)
CREATE TABLE batches (
    key TEXT PRIMARY KEY,
    sink TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) WITHOUT ROWID;

-- how many rows of a sink's oldest entry earlier batches have taken
CREATE TABLE outbox_start (sink TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;

-- totals per delivering sink that outlive a restart
CREATE TABLE delivered (sink TEXT PRIMARY KEY, sent INTEGER, refused INTEGER, dropped INTEGER) WITHOUT ROWID;

-- dead letters: readings refused, rows that failed in an operator, rows that a peer refused
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    clock INTEGER NOT NULL,
    node TEXT NOT NULL,
    reason TEXT NOT NULL,
    row TEXT NOT NULL
);
"""
