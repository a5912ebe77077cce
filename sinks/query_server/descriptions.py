"""What the routes of the query server say of themselves, for /openapi.json and /docs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline import api
from pipeline.api import Operation, Parameter
from sinks.query_server.forms import MEDIA
from sinks.query_server.questions import LATEST, LIMIT, MOST, MOST_POINTS

TIME = "2026-01-31T12:00:00Z, a number since 1970, -1h, or now."

KEY = Parameter("key", "Only this key; may be repeated.", repeated=True)
FIELDS = Parameter("fields", "Only these fields, with commas.")
FROM = Parameter("from", f"Rows from this time on. {TIME}")
TO = Parameter("to", f"Rows before this time. {TIME}")
ORDER = Parameter("order", "By time.", Literal["asc", "desc"])
ROWS_LIMIT = Parameter(
    "limit",
    f"Rows in the answer; {LIMIT:,} unless given. all: every one, sent as they are read.",
    Annotated[int, Meta(ge=1, le=MOST)] | Literal["all"],
)
POINTS = Parameter(
    "points",
    "For a chart so wide, instead of `limit`: of each key in each of points / 4 equal spans the first row, the last, and "
    "those with the least and the greatest of every number.",
    Annotated[int, Meta(ge=1, le=MOST_POINTS)],
)
REVISIONS = Parameter("revisions", "Corrected windows, or these and what they corrected.", Literal["newest", "all"])
FORM = Parameter(
    "format",
    "What the rows are written in; arrow is an IPC stream, and needs pyarrow on the device.",
    Literal["json", "ndjson", "csv", "arrow"],
)
CURSOR = Parameter("cursor", "Of a `next` link: where the last answer ended.")
LETTERS_LIMIT = Parameter("limit", "Letters in the answer.", Annotated[int, Meta(ge=1, le=MOST)])
NODE = Parameter("node", "Only those of this source, operator or sink.")
BEFORE = Parameter("before", "Only those older than this letter.", Annotated[int, Meta(ge=1, le=LATEST)])

STREAMS = Operation("The streams that are kept", api.Streams)
_FORMS = tuple(MEDIA.values())
LATEST_ROWS = Operation("The newest row of each key", api.Latest, (KEY, FIELDS, FORM), given=_FORMS)
ROWS = Operation(
    "The history of a stream",
    api.Rows,
    (KEY, FROM, TO, FIELDS, ROWS_LIMIT, POINTS, ORDER, REVISIONS, CURSOR, FORM),
    given=_FORMS,
)
ALERTS = Operation(
    "How each alert stands for each key, and the silences that hold",
    api.Alerts,
    (
        Parameter("state", "Only those in this state.", Literal["firing", "cleared", "all"]),
        KEY,
        Parameter("alert", "Only this alert; may be repeated.", repeated=True),
        Parameter("limit", f"Alerts in the answer; {LIMIT:,} unless given.", Annotated[int, Meta(ge=1, le=MOST)]),
        CURSOR,
    ),
)
ALERT = Operation("All rows of one alert, the oldest first", api.Alert)
WHY = Operation("What raised an alert: readings and conditions", api.Why)
WHY_NOT = Operation(
    "Why an alert does not fire for a key",
    api.WhyNot,
    (Parameter("alert", "Its operator's name."), Parameter("key", "Which key; none where the readings have none.")),
)
ACKNOWLEDGE = Operation("Somebody has seen it", api.Alert, body=api.Acknowledge)
SILENCE = Operation("Say nothing of an alert for a time", api.Silences, body=api.Silence)
DELIVERY = Operation("What waits for each sink", api.Delivery)
DEAD = Operation("Dead letters: what was refused, failed or rejected", api.Dead, (LETTERS_LIMIT, NODE, BEFORE))
FORGET = Operation("Keep nothing of a key that is gone but its history", api.Forgotten, body=api.Forget)
RELOAD = Operation("Have the pipeline file as it is now take over", api.Reloading, body=api.Reload)
REPLAY_DEAD = Operation("Try dead letters once more", api.Replayed, body=api.ReplayDead)
GRAPH = Operation("The graph, with counts at each node", api.Nodes)
HEALTH = Operation("Is all well, and if not, why", api.Health, statuses=(200, 503))
READY = Operation("Does it take readings", api.Ready, statuses=(200, 503))
DEBUG = Operation(
    "What the process is doing: stacks and sizes. For the token that may do all; without tokens, for this machine",
    api.Debug,
    inside=True,
)
METRICS = Operation("Metrics for Prometheus", str, given=("text/plain",))
QUERY = Operation(
    "A question in SQL to the history",
    api.Answer,
    (FORM,),
    body=api.Question,
    given=_FORMS,
    reads=True,
)
VALUES = Operation("The latest value of every key of the first input", dict[str, Any])
_LIVE = (
    Parameter("streams", "Only these streams, with commas."),
    KEY,
    Parameter("where", "Only rows for which this expression holds."),
    Parameter("last_event_id", "As the header Last-Event-ID: go on after this event."),
)
EVENTS = Operation("Rows as they become durable: Server-Sent Events", str, _LIVE, given=("text/event-stream",))
SOCKET = Operation("The same over a WebSocket", None, _LIVE, given=("*/*",), statuses=(101,))
