"""Every table of the state folder's one database, `headwater.db`, the number of its format, and the way from each earlier one.

A change of the tables: raise `FORMAT`, change `TABLES`, say in `MIGRATIONS` how the format before becomes the new one, and
keep a database of the format before in `tests/pipeline/journal/formats/`.
"""

DATABASE = "headwater.db"
FORMAT = 4

# The history of a stream is its Frames as they came (the tail), and what these were rearranged to: chunks of one key.
# `summary` has each number's count, sum, extremes and ends; first, last: event time, ns; unsure: as of frames
_CHUNKS = """
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    key INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL,
    summary BLOB NOT NULL,
    unsure INTEGER NOT NULL DEFAULT 0,
    size INTEGER GENERATED ALWAYS AS (length(data) + length(summary)) VIRTUAL
);
CREATE INDEX chunks_by_key ON chunks (stream, key, last, first, rows);
CREATE INDEX chunks_by_time ON chunks (stream, last, first, rows, size, unsure);
CREATE INDEX chunks_to_join ON chunks (stream, key, rows) WHERE rows < 1500;
"""

# Which rollups (rollup.py) have the rows of a chunk: a bit of each, 2**0 for the first that the stream ever had.
_ROLLED = """
ALTER TABLE chunks ADD COLUMN rolled INTEGER NOT NULL DEFAULT 0;
DROP INDEX chunks_by_key;
CREATE INDEX chunks_by_key ON chunks (stream, key, last, first, rows, rolled);
DROP INDEX chunks_by_time;
CREATE INDEX chunks_by_time ON chunks (stream, last, first, rows, size, unsure, rolled);
"""

# What people did about alerts, and what became of each row of one that a delivering sink was given. `key` is its name: a
# silence may come before the first reading of its key. Times are the wall clock's, ns
_ALERTS = """
CREATE TABLE acknowledged (alert TEXT PRIMARY KEY, by TEXT NOT NULL, note TEXT NOT NULL, clock INTEGER NOT NULL);
CREATE TABLE silences (
    id INTEGER PRIMARY KEY,
    alert TEXT NOT NULL,
    key TEXT,                   -- NULL: each
    until INTEGER NOT NULL,
    by TEXT NOT NULL,
    note TEXT NOT NULL,
    clock INTEGER NOT NULL
);
CREATE TABLE fates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert TEXT NOT NULL,
    key INTEGER NOT NULL,
    time INTEGER NOT NULL,      -- of the row, ns
    sink TEXT NOT NULL,
    fate TEXT NOT NULL,         -- waiting | sent | refused | silenced
    UNIQUE (alert, key, time, sink)
);
"""

# Whatever adds or drops a letter, what is held is known without a look at the others.
_HELD = """
CREATE TRIGGER dead_came AFTER INSERT ON dead
    BEGIN UPDATE dead_held SET letters = letters + 1, bytes = bytes + new.size; END;
CREATE TRIGGER dead_changed AFTER UPDATE ON dead
    BEGIN UPDATE dead_held SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER dead_went AFTER DELETE ON dead
    BEGIN UPDATE dead_held SET letters = letters - 1, bytes = bytes - old.size; END;
"""

TABLES = (
    """
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
    data BLOB NOT NULL,
    unsure INTEGER NOT NULL DEFAULT 0,  -- 1: its times are this device's, from when its clock was not to be trusted
    size INTEGER GENERATED ALWAYS AS (length(data)) VIRTUAL
);
CREATE INDEX frames_by_stream ON frames (stream, last, first, rows, size, unsure) WHERE history;
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
    data BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,    -- how many of its rows earlier batches have taken
    level INTEGER NOT NULL DEFAULT 0,   -- 0: rows as they came; else thinned, to intervals of this level
    size INTEGER GENERATED ALWAYS AS (length(data)) VIRTUAL
);
CREATE INDEX outbox_by_sink ON outbox (sink, id, keep, level, rows, sent, size, clock);
CREATE INDEX outbox_to_keep ON outbox (keep, id) WHERE keep = 1;

-- the bounds of a batch, written before its first try: [first_id:first_row, last_id:last_row), of the entries of its lane
CREATE TABLE batches (
    key TEXT PRIMARY KEY,
    sink TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    lane TEXT NOT NULL DEFAULT 'all',       -- all | kept | rows: which entries between its bounds belong to it
    recovered INTEGER NOT NULL DEFAULT 0    -- 1: its rows waited while the peer could not be reached
) WITHOUT ROWID;

-- whether a sink's peer can be reached, and which entries waited while it could not
CREATE TABLE outages (
    sink TEXT PRIMARY KEY,
    failing INTEGER NOT NULL,   -- 1: the last try failed
    backlog INTEGER NOT NULL    -- the last entry that waited while it could not be reached
) WITHOUT ROWID;

-- totals per delivering sink that outlive a restart, in rows
CREATE TABLE delivered (
    sink TEXT PRIMARY KEY,
    sent INTEGER,
    refused INTEGER,
    dropped INTEGER,
    thinned INTEGER NOT NULL DEFAULT 0      -- that others now stand for
) WITHOUT ROWID;

-- dead letters: readings refused, rows that failed in an operator, rows that a peer refused
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    clock INTEGER NOT NULL,
    node TEXT NOT NULL,
    reason TEXT NOT NULL,
    row TEXT NOT NULL,
    whole INTEGER NOT NULL DEFAULT 1,   -- 0: not all of it is in `row`: it cannot be replayed
    format TEXT NOT NULL DEFAULT '',    -- media type of a reading; '': its source's own format
    size INTEGER GENERATED ALWAYS AS (length(CAST(row AS BLOB)) + length(CAST(reason AS BLOB)) + 100) VIRTUAL
);
-- how many there are, and their bytes
CREATE TABLE dead_held (letters INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO dead_held VALUES (0, 0);
"""
    + _HELD
    + _CHUNKS
    + _ROLLED
    + _ALERTS
)

# What makes a database of the format before into one of format N + 1.
MIGRATIONS = {
    1: """
ALTER TABLE frames ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;
ALTER TABLE frames ADD COLUMN size INTEGER GENERATED ALWAYS AS (length(data)) VIRTUAL;
DROP INDEX frames_by_stream;
CREATE INDEX frames_by_stream ON frames (stream, last, first, rows, size, unsure) WHERE history;

ALTER TABLE outbox ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN level INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN size INTEGER GENERATED ALWAYS AS (length(data)) VIRTUAL;
DROP INDEX outbox_by_sink;
CREATE INDEX outbox_by_sink ON outbox (sink, id, keep, level, rows, sent, size, clock);
CREATE INDEX outbox_to_keep ON outbox (keep, id) WHERE keep = 1;
UPDATE outbox SET sent = coalesce((SELECT row FROM outbox_start WHERE outbox_start.sink = outbox.sink), 0)
    WHERE id IN (SELECT min(id) FROM outbox GROUP BY sink);
DROP TABLE outbox_start;

ALTER TABLE batches ADD COLUMN lane TEXT NOT NULL DEFAULT 'all';
ALTER TABLE batches ADD COLUMN recovered INTEGER NOT NULL DEFAULT 0;
CREATE TABLE outages (sink TEXT PRIMARY KEY, failing INTEGER NOT NULL, backlog INTEGER NOT NULL) WITHOUT ROWID;
ALTER TABLE delivered ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0;

ALTER TABLE dead ADD COLUMN whole INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead ADD COLUMN format TEXT NOT NULL DEFAULT '';
ALTER TABLE dead ADD COLUMN size INTEGER
    GENERATED ALWAYS AS (length(CAST(row AS BLOB)) + length(CAST(reason AS BLOB)) + 100) VIRTUAL;
UPDATE dead SET whole = 0 WHERE length(row) >= 200 AND NOT json_valid(row);     -- readings were cut there
CREATE TABLE dead_held (letters INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO dead_held SELECT count(*), coalesce(sum(size), 0) FROM dead;
"""
    + _HELD,
    2: _CHUNKS + _ALERTS,
    3: _ROLLED,
}
