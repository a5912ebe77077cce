"""`query_server`: a local history, and HTTP answers from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from pipeline.clock import RealClock
from pipeline.component import Kept, Server, Settings, Sink, SinkContext, StepWrites
from pipeline.frame import Frame
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration, Size

DEFAULT = "default"  # of a table by input: what holds for those that it does not name
LEAST, MOST = 10**9, 8  # ns; rollups of an input


class Rollup(Settings, frozen=True):
    """Of each key in each interval: what a chart needs, counts and sums."""

    every: Annotated[Duration, Meta(ge=10**9, description="The interval, counted from 1970.")]
    retention: Annotated[
        Duration | None,
        Meta(description="How long it is kept. Absent: 500,000 intervals, a minute's for almost a year."),
    ] = None


Rollups = tuple[Duration | Rollup, ...]


class QueryServerSettings(Settings, frozen=True):
    retention: Annotated[
        Duration | dict[str, Duration] | None,
        Meta(description="How old rows may get; of all inputs, or by input, and `default` for the others."),
    ] = None
    max_size: Annotated[
        Size | dict[str, Size] | None,
        Meta(
            description="How large the history of all inputs together may get, or of each input, as with `retention`."
        ),
    ] = None
    rollup: Annotated[
        Rollups | dict[str, Rollups],
        Meta(description="Coarser histories that are kept for longer: intervals, for all inputs or by input."),
    ] = ()


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
    POST /api/keys/forget       {"key": "s1"}: of a key that is gone for good nothing is kept but its history; with a `stream`
                                only there and in what comes of it (docs/alerts.md)
    /api/dead                   what was refused, failed or rejected, and why, the newest first (`node`, `limit`, `before`:
                                a letter's `id`). POST /api/dead/replay tries some once more, when the cause is mended:
                                {"ids": [7, 8]}, {"node": "valid"} or {"all": true}; what is taken counts once, and is gone
    /api/debug                  where each task and thread of the process stands, and how much it holds. For the token that
                                may do all; without tokens, for clients on this machine
    /api/delivery, /api/graph, /health, /ready, /metrics
    /data, /status              the latest values of the first input, where no http source has these paths

    Times are asked for as 2026-01-31T12:00:00Z, as a number since 1970 (its size tells the unit), or as -1h. JSON has no
    NaN: it shows as null there, as what is missing does; CSV shows it. More on these answers: docs/query.md.
    Several query_servers answer as one; each keeps its inputs for its own time.
    With `retention = { valid = "2 d", ten_seconds = "1 y", default = "30 d" }` each input has a time of its own; `max_size`
    likewise. `rollup = ["1 min", { every = "1 h", retention = "5 y" }]` (or a table by input) keeps for each key and interval the
    first row, the last and those with the extremes, how many rows there were and their sums. `points` is answered from these
    where they are fine enough, and where nothing finer is left; in SQL they are tables such as valid_1min.
    At the limit: `retention` and `max_size` drop the oldest rows; without them the history grows until the disk is full.
    A rollup keeps 500,000 intervals of a key unless it has a `retention`.
    """

    needs_server = True

    def __init__(self, settings: QueryServerSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        limits = (self._by_input("retention", settings.retention), self._by_input("max_size", settings.max_size))
        self.kept = [Kept(s, limits[0].get(s), limits[1].get(s)) for s in dict.fromkeys((*limits[0], *limits[1]))]
        limited = {stream for limit in limits for streams in limit for stream in streams}
        if endless := [stream for stream in context.inputs if stream not in limited]:
            text = f"the history of {', '.join(endless)} grows until the disk is full: set retention or max_size"
            context.warn("", text)
        self.kept = self.kept or [Kept(tuple(context.inputs), None, None)]
        self.rollups = self._rollups(settings.rollup)

    def _by_input(self, name: str, given: int | Mapping[str, int] | None) -> dict[tuple[str, ...], int]:
        """Which inputs have which limit: one for all of them together, or each its own."""
        inputs = tuple(self.context.inputs)
        if given is None:
            return {}
        by_input = given if isinstance(given, Mapping) else {"": given}
        for stream, least in by_input.items():
            if least <= 0:
                self.context.problem(f"{name}.{stream}" if stream else name, "must be more than nothing")
        if not isinstance(given, Mapping):
            return {inputs: given}
        self._known(name, given)
        return {(s,): limit for s in inputs if (limit := given.get(s, given.get(DEFAULT))) is not None}

    def _rollups(self, given: Rollups | Mapping[str, Rollups]) -> dict[str, dict[int, int | None]]:
        """By input: how long each is kept, by its interval."""
        if isinstance(given, Mapping):
            self._known("rollup", given)
            by_input = {stream: given.get(stream, given.get(DEFAULT, ())) for stream in self.context.inputs}
        else:
            by_input = dict.fromkeys(self.context.inputs, given)
        found: dict[str, dict[int, int | None]] = {}
        for stream, entries in by_input.items():
            for entry in entries:
                one = entry if isinstance(entry, Rollup) else Rollup(entry)
                if one.every < LEAST or (one.retention is not None and one.retention <= 0):
                    self.context.problem("rollup", "an interval is at least 1 s, a retention more than nothing")
                    return {}
                found.setdefault(stream, {})[one.every] = one.retention
            if len(found.get(stream, ())) > MOST:
                self.context.problem("rollup", f"at most {MOST} for an input")
        return found

    def _known(self, name: str, given: Mapping[str, object]) -> None:
        """`given` names inputs of this sink."""
        for stream in given.keys() - {*self.context.inputs, DEFAULT}:
            hint = did_you_mean(stream, [*self.context.inputs, DEFAULT])
            self.context.problem(f"{name}.{stream}", f'"{stream}" is no input of this sink{hint}')

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        writes.record(stream, frame)

    def mount(self, server: Server) -> None:
        from sinks.query_server.routes import mount

        context = self.context
        assert context.services is not None
        mount(server, context.services, context.inputs, context.keys, context.clock or RealClock())
