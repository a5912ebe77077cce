"""`query_server`: a local history, and HTTP answers from it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pipeline.clock import RealClock
from pipeline.component import Server, Settings, Sink, SinkContext, StepWrites
from pipeline.frame import Frame
from pipeline.quantity import Duration, Size


class QueryServerSettings(Settings, frozen=True):
    retention: Annotated[Duration | None, Meta(description="How old rows may get.")] = None
    max_size: Annotated[Size | None, Meta(description="How large the history of each input may get.")] = None


class QueryServer(Sink):
    """Keep the rows of the inputs, and answer questions about them.

        [sinks.local]
        type = "query_server"
        inputs = ["valid", "ten_seconds", "overheat"]
        retention = "30 d"

        curl 'http://127.0.0.1:8080/api/streams/valid/rows?key=s1&from=-1h'

    /                           the dashboard: a page that asks for all this; with a token it asks for that first, too
    /api/streams                what there is: fields, keys, number of rows, oldest and newest
    /api/streams/NAME/latest    the newest row of each key (`key`, `fields`, `format`)
    /api/streams/NAME/rows      the history: `key` (repeated for several), `from` (inclusive), `to` (exclusive), `fields`
                                (with commas), `limit` (1,000; at most 100,000, or all), `order` (asc, desc), `format` (json,
                                ndjson, csv, arrow; or the header Accept). `next`, and the header Link, are the address of the
                                rows after these. `points`: the rows that a chart so wide needs. `revisions` (newest, all):
                                corrected windows, or these and what they corrected
    POST /api/query             {"sql": "SELECT …"}: each stream is a table; read-only, with limits of time and rows
    /api/live                   rows as they become durable, as Server-Sent Events: `streams` (with commas; else all), `key`,
                                `where` (an expression). With the header Last-Event-ID (or `last_event_id`) those since then
                                come first, about 20,000 of a stream at most, also after a restart. A listener that is too
                                slow gets the event `missed` with the number of rows, and what comes after
    /api/socket                 the same over a WebSocket
    /api/alerts                 how each alert stands for each key, the newest first (`state`: firing, cleared, all; `key`,
                                `alert`; `limit`, 1,000, and `next`), with its `id`, who has acknowledged it, whether it is
                                silenced, and what became of the row at each delivering sink (`delivery`: waiting, sent,
                                refused, silenced); and all silences that hold
    /api/alerts/ID              the rows of one alert of one key, from when its condition began to hold until it was over; a
                                level that came later has a `since`, and so an ID, of its own
    /api/alerts/ID/why          what raised it: the readings from `since` to the one that its row shows, as far as they are
                                recorded, and the conditions at that one: each part, both sides, how far they are apart
    /api/alerts/why-not         `alert`, `key`: what it makes of the key's newest recorded reading, what it waits for or is held
                                back by, and in a sentence why it does not fire
    POST /api/alerts/ID/acknowledge     {"by": "ann", "note": "on my way"}; the last one to say so counts
    POST /api/alerts/silence    {"alert": "overheat", "key": "s1", "for": "1 h", "by": "ann"}, with a `note` if need be;
                                without `key` for each. While it holds, rows of the alert go to no delivering sink; they are
                                not sent later. They are recorded all the same. "0 s" ends it
    /api/dead                   what was refused, failed or rejected, and why, the newest first (`node`, `limit`, `before`:
                                a letter's `id`). POST /api/dead/replay tries some once more, when the cause is mended:
                                {"ids": [7, 8]}, {"node": "valid"} or {"all": true}; what is taken counts once, and is gone
    /api/delivery, /api/graph, /health, /ready, /metrics
    /data, /status              the latest values of the first input, where no http source has these paths

    Times are asked for as 2026-01-31T12:00:00Z, as a number since 1970 (its size tells the unit), or as -1h. JSON has no
    NaN: it shows as null there, as what is missing does; CSV shows it. More on these answers: docs/query.md.
    Several query_servers answer as one; each keeps its inputs for its own time.
    At the limit: `retention` and `max_size` drop the oldest rows; without them the history grows until the disk is full.
    """

    needs_server = True

    def __init__(self, settings: QueryServerSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.retention = settings.retention
        self.max_size = settings.max_size
        for name, least in (("retention", self.retention), ("max_size", self.max_size)):
            if least is not None and least <= 0:
                context.problem(name, "must be more than nothing")

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        writes.record(stream, frame)

    def mount(self, server: Server) -> None:
        from sinks.query_server.routes import mount

        context = self.context
        assert context.services is not None
        mount(server, context.services, context.inputs, context.keys, context.clock or RealClock())
