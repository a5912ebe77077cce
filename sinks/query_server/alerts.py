"""The routes of alerts: how they stand, what was said of each, and what people do about them."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from aiohttp import web

from pipeline.alerts import alert_names
from pipeline.api import described
from pipeline.component import AlertNotes, RowsQuery, Server, Services, Silence
from pipeline.frame import Frame, KeyTable, Schema, instant_text, rows
from pipeline.problem import did_you_mean
from pipeline.quantity import duration
from pipeline.web import HttpProblem, answer, read_body
from sinks.query_server import descriptions, questions

if TYPE_CHECKING:
    from pipeline.clock import Clock

_TIME = re.compile(r"-?\d{1,19}")
MOST_BYTES = 100_000  # of the body of a request
LONGEST = 1_000  # characters of what somebody says
LONGEST_SILENCE = 3_653 * 86_400 * 1_000_000_000  # ns; ten years
ROWS = 1_000  # of one alert in an answer
MOST_READ = 10_000  # rows of its key that are looked at for them, from its beginning on
EARLIER = 100  # readings before the one in question that conditions may look back to
MOST_READINGS = 1_000


class Alert(NamedTuple):
    """One alert of one key, from when its condition began to hold until it is over."""

    name: str
    key: str
    since: int  # ns

    @property
    def id(self) -> str:
        """The same on every device and after every restart."""
        return urlsafe_b64encode(orjson.dumps([*self])).decode().rstrip("=")

    @classmethod
    def of(cls, id_: str) -> Alert | None:
        try:
            name, key, since = orjson.loads(urlsafe_b64decode(id_ + "=" * (-len(id_) % 4)))
        except (ValueError, TypeError):
            return None
        found = cls(name, key, since)
        fits = isinstance(name, str) and isinstance(key, str) and type(since) is int and abs(since) <= questions.LATEST
        return found if fits and found.id == id_ else None


class Standing(NamedTuple):
    """A row of an alert, and where it was found."""

    alert: Alert
    stream: str
    code: int  # of its key
    time: int
    reading: int | None  # the time of the reading that it shows, ns
    row: dict[str, Any]

    @property
    def place(self) -> tuple[int, Alert]:
        """In a list of them: the newest first."""
        return -self.time, self.alert


class Alerts:
    """A handler for each question; HttpProblem for one that cannot be answered."""

    def __init__(self, services: Services, inputs: dict[str, Schema], keys: KeyTable, clock: Clock) -> None:
        self.services = services
        self.inputs = inputs
        self.keys = keys
        self.clock = clock

    def mount(self, server: Server) -> None:
        server.route("GET", "/api/alerts", self.all)
        server.route("GET", "/api/alerts/why-not", self.why_not)
        server.route("GET", "/api/alerts/{id}", self.one)
        server.route("GET", "/api/alerts/{id}/why", self.why)
        server.route("POST", "/api/alerts/{id}/acknowledge", self.acknowledge)
        server.route("POST", "/api/alerts/silence", self.silence)

    # --- questions ---

    @described(descriptions.ALERTS)
    async def all(self, request: web.Request) -> web.StreamResponse:
        """How each alert stands for each key, the newest first; and the silences that hold."""
        questions.only(request, ("state", "key", "alert", "limit", "cursor"))
        limit, after = questions.number(request, "limit", questions.LIMIT, questions.MOST), _cursor(request)
        state = questions.choice(request, "state", ("firing", "cleared", "all"), "all")
        keys, names = request.query.getall("key", None), request.query.getall("alert", None)
        found = [
            one
            for one in self._standing()
            if state in ("all", one.row["state"])
            and (keys is None or one.alert.key in keys)
            and (names is None or one.alert.name in names)
        ]
        rest = found if after is None else [one for one in found if one.place > after]
        page = rest[:limit]
        following = _link(request, page[-1]) if len(rest) > limit else None
        notes = await self._notes(page)
        shown = [self._shown(one, notes, i) for i, one in enumerate(page)]
        silences = [_silence(one) for one in notes.silences]
        return answer({"alerts": shown, "silences": silences, "total": len(found), "next": following})

    @described(descriptions.ALERT)
    async def one(self, request: web.Request) -> web.StreamResponse:
        """Its rows, the oldest first."""
        questions.only(request, ())
        found = await self._history(self._asked(request))
        notes = await self._notes(found)
        shown = [self._shown(one, notes, i) for i, one in enumerate(found)]
        return answer({"alert": shown[-1], "rows": shown})

    @described(descriptions.WHY)
    async def why(self, request: web.Request) -> web.StreamResponse:
        """What raised it: the readings from `since` to the row's, and the conditions at the last of them."""
        questions.only(request, ())
        found = await self._history(self._asked(request))
        at = next((i for i, one in enumerate(found) if one.row["state"] == "firing"), 0)
        raised, notes = found[at], await self._notes(found)
        told: dict[str, Any] = {"alert": self._shown(raised, notes, at)}
        name, since = raised.alert.name, raised.alert.since
        inputs = self.services.inputs(name)
        if not inputs:
            return answer(told | {"operator": None, "readings": [], "hint": f'the pipeline has no alert "{name}" now'})
        end = raised.time if raised.reading is None else raised.reading
        readings, missing = await self._readings(inputs, raised.alert.key, end, MOST_READINGS)
        operator = await self.services.explain(name, raised.code, readings)
        if operator is not None and operator["group"]:
            hint = "this row is of a group: `keys` says which keys fire, and /api/alerts/why-not looks at one of them"
            return answer(told | {"operator": None, "readings": [], "hint": hint})
        shown = self._shown_readings({n: f.where(f.time >= since) for n, f in readings.items()})
        return answer(told | {"operator": _at_raise(operator), "readings": shown, "hint": missing})

    @described(descriptions.WHY_NOT)
    async def why_not(self, request: web.Request) -> web.StreamResponse:
        """What an alert makes of the newest reading of a key, and what keeps it from firing."""
        questions.only(request, ("alert", "key"))
        name, key = request.query.get("alert"), request.query.get("key")
        if name is None:
            raise HttpProblem(400, "alert: missing; which one?", parameter="alert")
        alerts = {node["name"] for node in self.services.graph() if node.get("type") == "alert"}
        if name not in alerts:
            raise HttpProblem(404, f'there is no alert "{name[:100]}"{did_you_mean(name, alerts)}', parameter="alert")
        inputs = self.services.inputs(name)
        keyed = self.services.schema(inputs[0]).key is not None
        if keyed and key is None:
            raise HttpProblem(400, "key: missing; of which one?", parameter="key")
        code = self.keys.get(key) if keyed else self.keys.whole()
        if code is None:
            raise HttpProblem(404, f'"{(key or "")[:100]}" has had no reading', parameter="key")
        readings, hint = await self._readings(inputs, key or "", questions.LATEST, EARLIER + 1)
        told = await self.services.explain(name, code, readings)
        assert told is not None  # each alert says
        newest = self._shown_readings(readings)[-1:]
        silences = (await self.services.alert_notes((), ())).silences
        silence = _of(silences, name, key or "")
        about = {"reading": newest[0] if newest else None, "silenced": silence and _silence(silence), "hint": hint}
        return answer({"alert": name, "key": key} | told | about)

    # --- what people do ---

    @described(descriptions.ACKNOWLEDGE)
    async def acknowledge(self, request: web.Request) -> web.StreamResponse:
        """{"by": "ann", "note": "on my way"}"""
        questions.only(request, ())
        alert = self._asked(request)
        said = await _body(request, '{"by": "ann", "note": "on my way"}', ("by", "note"))
        by, note = _text(said, "by"), _text(said, "note", "")
        await self._history(alert)  # 404 where there is none
        await self._ready().acknowledge(alert.id, by, note)
        return await self.one(request)

    @described(descriptions.SILENCE)
    async def silence(self, request: web.Request) -> web.StreamResponse:
        """{"alert": "overheat", "key": "s1", "for": "1 h", "by": "ann"}"""
        questions.only(request, ())
        example = '{"alert": "overheat", "key": "s1", "for": "1 h", "by": "ann"}'
        said = await _body(request, example, ("alert", "key", "for", "by", "note"))
        name = _text(said, "alert")
        key = None if said.get("key") is None else _text(said, "key")
        by, note, text = _text(said, "by"), _text(said, "note", ""), _text(said, "for")
        try:
            length = int(duration(text))
        except ValueError as error:
            raise HttpProblem(400, f"for: {error}", parameter="for") from None
        if length > LONGEST_SILENCE:
            raise HttpProblem(400, "for: at most 10 years", parameter="for")
        if name not in (known := self._names()):
            raise HttpProblem(404, f'there is no alert "{name[:100]}"{did_you_mean(name, known)}', parameter="alert")
        await self._ready().silence(name, key, length, by, note)
        silences = (await self.services.alert_notes((), ())).silences
        return answer({"silences": [_silence(one) for one in silences]})

    def _ready(self) -> Services:
        if not self.services.health()["ready"]:
            raise HttpProblem(503, "the pipeline is starting or stopping", {"Retry-After": "1"})
        return self.services

    # --- what there is ---

    def _streams(self) -> dict[str, Schema]:
        return {name: schema for name, schema in self.inputs.items() if schema.role == "alerts"}

    def _names(self) -> set[str]:
        """Of all alerts of the pipeline, recorded here or not."""
        alerts = {node["name"] for node in self.services.graph() if node.get("type") == "alert"}
        return alerts | {name for name, schema in self._streams().items() if "alert" not in schema.fields}

    def _asked(self, request: web.Request) -> Alert:
        found = Alert.of(request.match_info["id"])
        if found is None:
            raise _unknown()
        return found

    def _standing(self) -> list[Standing]:
        """How each alert stands for each key, the newest first. One that several streams carry is told once."""
        newest: dict[Alert, Standing] = {}
        for stream, schema in self._streams().items():
            for one in self._read(stream, schema, self.services.alerts(stream)):
                if one.alert not in newest or newest[one.alert].time < one.time:
                    newest[one.alert] = one
        return sorted(newest.values(), key=lambda one: one.place)

    async def _history(self, alert: Alert) -> list[Standing]:
        """The rows of one alert, from the first stream that knows it: those recorded, or at least the last one.
        HttpProblem if there are none."""
        for stream, schema in self._streams().items():
            keys = [alert.key] if schema.key else None
            frame = await self.services.rows(RowsQuery(stream, keys, alert.since, limit=MOST_READ))
            if found := [one for one in self._read(stream, schema, frame) if one.alert == alert]:
                return found[:ROWS]
        if kept := [one for one in self._standing() if one.alert == alert]:
            return kept
        raise _unknown()

    async def _readings(
        self, inputs: tuple[str, ...], key: str, end: int, most: int
    ) -> tuple[dict[str, Frame], str | None]:
        """The newest readings of a key up to a time, by input and in order; and what to do where they are not recorded."""
        found = {}
        for stream in inputs:
            if (schema := self.inputs.get(stream)) is not None:
                query = RowsQuery(stream, [key] if schema.key else None, None, end + 1, most, descending=True)
                newest = await self.services.rows(query)
                found[stream] = newest.take(slice(None, None, -1))
        missing = ", ".join(f'"{stream}"' for stream in inputs if stream not in self.inputs)
        hint = (
            f"{missing}: not recorded; add it to the `inputs` of a query_server to see its readings"
            if missing
            else None
        )
        return found, hint

    def _shown_readings(self, readings: dict[str, Frame]) -> list[dict[str, Any]]:
        """Of several streams by time."""
        found: list[tuple[int, dict[str, Any]]] = []
        for stream, frame in readings.items():
            shown = rows(frame, self.inputs[stream], self.keys.names)
            found += [(at, {"stream": stream} | row) for at, row in zip(frame.time.tolist(), shown, strict=True)]
        return [row for _, row in sorted(found, key=lambda one: one[0])]

    def _read(self, stream: str, schema: Schema, frame: Frame) -> list[Standing]:
        shown = rows(frame, schema, self.keys.names)
        since = frame.columns["since"].values if "since" in frame.columns else frame.time
        reading = frame.columns["reading"].tolist() if "reading" in frame.columns else [None] * len(frame)
        columns = (alert_names(frame, stream), frame.key.tolist(), since.tolist(), frame.time.tolist(), reading, shown)
        return [
            Standing(Alert(name, self.keys.names[code], begun), stream, code, *more)
            for name, code, begun, *more in zip(*columns, strict=True)
        ]

    # --- how it is shown ---

    async def _notes(self, found: list[Standing]) -> AlertNotes:
        asked = [(one.alert.name, one.code, one.time) for one in found]
        return await self.services.alert_notes([one.alert.id for one in found], asked)

    def _shown(self, one: Standing, notes: AlertNotes, number: int) -> dict[str, Any]:
        alert = one.alert
        done = notes.acknowledged.get(alert.id)
        silence = _of(notes.silences, alert.name, alert.key)
        own = {"id": alert.id, "stream": one.stream, "key": alert.key, "alert": alert.name}
        about = {
            "acknowledged": done and {"by": done.by, "note": done.note, "time": instant_text(done.clock)},
            "silenced": silence and _silence(silence),
            "delivery": notes.delivery[number],
        }
        return own | one.row | own | about  # the key may be called "id"


def _cursor(request: web.Request) -> tuple[int, Alert] | None:
    """The place behind which the answer begins."""
    text = request.query.get("cursor")
    if text is None:
        return None
    time, _, id_ = text.partition(".")
    alert = Alert.of(id_)
    if alert is None or not _TIME.fullmatch(time) or abs(int(time)) > questions.LATEST:
        raise questions.bad("cursor", "the one of `next`", text)
    return -int(time), alert


def _link(request: web.Request, last: Standing) -> str:
    return str(request.rel_url.update_query({"cursor": f"{last.time}.{last.alert.id}"}))


def _of(silences: list[Silence], alert: str, key: str) -> Silence | None:
    return next((one for one in silences if one.alert == alert and one.key in (None, key)), None)


def _at_raise(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """Without what the alert has come to since."""
    if told is None:
        return None
    now = ("state", "since", "until")
    levels = [{name: value for name, value in level.items() if name not in now} for level in told["levels"]]
    kept = {name: told[name] for name in ("repeat", "flapping") if name in told}
    silence = {"silent_for": told["silence"]["silent_for"]} if "silence" in told else {}
    return {"levels": levels} | kept | silence | ({"inhibit": [*told["inhibit"]]} if "inhibit" in told else {})


def _silence(one: Silence) -> dict[str, Any]:
    shown = {"alert": one.alert, "key": one.key, "until": instant_text(one.until), "by": one.by, "note": one.note}
    return shown | {"time": instant_text(one.clock)}


def _unknown() -> HttpProblem:
    return HttpProblem(404, "there is no such alert (any more): /api/alerts gives the id of each")


async def _body(request: web.Request, example: str, known: tuple[str, ...]) -> dict[str, Any]:
    """What somebody says, as JSON."""
    try:
        said = orjson.loads(await read_body(request, MOST_BYTES))
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, f"the body is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise HttpProblem(400, f"the body is an object such as {example}")
    for name in said:
        if name not in known:
            raise HttpProblem(
                400, f'"{name[:100]}" means nothing here{did_you_mean(name, known)}', parameter=name[:100]
            )
    return said


def _text(said: dict[str, Any], name: str, absent: str | None = None) -> str:
    value = said.get(name)
    if value is None and absent is not None:
        return absent
    if value is None:
        raise HttpProblem(400, f"{name}: missing", parameter=name)
    if not isinstance(value, str) or len(value) > LONGEST or not (value.strip() or absent is not None):
        raise HttpProblem(400, f"{name}: text of at most {LONGEST:,} characters", parameter=name)
    return value
