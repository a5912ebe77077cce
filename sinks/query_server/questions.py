"""What a request asks: the parameters of its query, each understood or refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson

from pipeline import arrow
from pipeline.api import Forget, Question, Reload
from pipeline.component import RowsQuery
from pipeline.frame import Frame, Ints, Schema, instant_text
from pipeline.problem import did_you_mean
from pipeline.quantity import duration
from pipeline.times import nanoseconds
from pipeline.walk import Walk
from pipeline.web import HttpProblem
from sinks.query_server.forms import MEDIA, available

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

    from pipeline.clock import Clock

LIMIT = 1_000  # rows of an answer, unless asked otherwise
MOST = 100_000
MOST_POINTS = 10_000
ALL = 2**62  # more rows than there can be
WALK_ROWS = 30_000  # of a long answer that are read at once: 1 to 2 MB
LATEST = 2**63 - 2  # ns; one more must fit into 64 bits
_DIGITS = 19  # of it; Python refuses to read very long numbers

_RELATIVE = re.compile(r"-\s*([0-9.]+\s*[A-Za-zµ]+)")
_LOST_PLUS = re.compile(r"(.*T.*) (\d\d:\d\d)")  # 2026-01-31T12:00:00+01:00, its plus sign not quoted in the URL
_CURSOR = re.compile(r"(-?\d{1,19})\.(\d{1,6})")


def bad(name: str, wanted: str, got: str) -> HttpProblem:
    """A parameter that cannot be understood."""
    return HttpProblem(400, f'{name}: {wanted}, not "{got[:100]}"', parameter=name)


def only(request: web.Request, known: Iterable[str]) -> None:
    """HttpProblem for a parameter that would be ignored: the answer would not be to the question."""
    for name in request.query:
        if name not in known:
            hint = did_you_mean(name, known)
            raise HttpProblem(400, f'there is no parameter "{name[:100]}"{hint}', parameter=name[:100])


def choice(request: web.Request, name: str, choices: Iterable[str], default: str) -> str:
    value = request.query.get(name, default)
    if value not in choices:
        raise bad(name, f"one of {', '.join(choices)}", value)
    return value


def number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and 1 <= int(text) <= most):
        raise bad(name, f"a number from 1 to {most}", text)
    return int(text)


def time(request: web.Request, name: str, clock: Clock) -> int | None:
    """RFC 3339, a number since 1970 whose size tells the unit, or `-1h` from now. ns"""
    text = request.query.get(name)
    return None if text is None else parse_time(name, text, clock)


def parse_time(name: str, text: str, clock: Clock) -> int:
    text = text.strip()
    if text == "now":
        return clock.wall()
    if relative := _RELATIVE.fullmatch(text):
        try:
            return max(clock.wall() - duration(relative[1]), -LATEST)
        except (ValueError, OverflowError) as error:
            raise HttpProblem(400, f"{name}: {error}", parameter=name) from None
    lost = _LOST_PLUS.fullmatch(text)
    value: Any = f"{lost[1]}+{lost[2]}" if lost else text
    for kind in (int, float):
        try:
            value = kind(text)
            break
        except ValueError:
            continue
    times, good = nanoseconds([value], "auto")
    if good is not None and not good.all():
        raise bad(name, "a time such as 2026-01-31T12:00:00Z, 1769860800 or -1h", text)
    return int(times[0])


def fields(request: web.Request, schema: Schema) -> Schema:
    """The schema with only those fields that are asked for; the key and `time` are always there."""
    asked = [name for text in request.query.getall("fields", []) for name in text.split(",") if name.strip()]
    if not asked:
        return schema
    for name in asked:
        if name not in schema.names():
            hint = did_you_mean(name, schema.names())
            raise HttpProblem(400, f'fields: there is no field "{name[:100]}"{hint}', parameter="fields")
    return schema._replace(fields={name: schema.fields[name] for name in asked if name in schema.fields})


def keys(request: web.Request, schema: Schema) -> list[str] | None:
    """The keys asked for; None: all."""
    asked: list[str] | None = request.query.getall("key", None)
    if asked is not None and schema.key is None:
        raise HttpProblem(400, "key: this stream has no key", parameter="key")
    return asked


def letters(body: bytes) -> tuple[list[int] | None, str | None]:
    """Which dead letters to replay: `{"ids": [3, 4]}`, `{"node": "valid"}`, or all of them with `{"all": true}`."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict) or len(asked) != 1 or not set(asked) <= {"ids", "node", "all"}:
        raise HttpProblem(400, 'the body is {"ids": [1, 2]}, {"node": "NAME"} or {"all": true}')
    ids, node = asked.get("ids"), asked.get("node")
    if "ids" in asked and not (isinstance(ids, list) and all(_is_number(i) for i in ids)):
        raise HttpProblem(400, "ids: a list of the numbers that /api/dead gives", parameter="ids")
    if "node" in asked and not isinstance(node, str):
        raise HttpProblem(400, "node: the name of a source, operator or sink", parameter="node")
    if "all" in asked and asked["all"] is not True:
        raise HttpProblem(400, "all: true, or leave it out", parameter="all")
    return ids, node


def reload(body: bytes) -> Reload:
    """`{}` or `{"only_plan": true}`; no body is the first."""
    try:
        asked = msgspec.json.decode(body or b"{}", type=Reload)
        unknown = msgspec.json.decode(body or b"{}").keys() - {"only_plan"}
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HttpProblem(400, f'the body is {{}} or {{"only_plan": true}}: {error}') from None
    if unknown:
        raise HttpProblem(400, f'unknown: {", ".join(sorted(unknown))}; there is only "only_plan"')
    return asked


def forget(body: bytes) -> Forget:
    """`{"key": "s1"}`, with a `stream` if it is not everywhere."""
    try:
        asked = msgspec.json.decode(body, type=Forget)
        unknown = msgspec.json.decode(body).keys() - {"key", "stream"}
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HttpProblem(400, f'the body is {{"key": "s1"}}, with a "stream" if need be: {error}') from None
    if unknown:
        raise HttpProblem(400, f'the body has no member "{min(unknown)[:100]}": it has key and stream')
    return asked


def sql(body: bytes) -> Question:
    """`{"sql": "SELECT …", "parameters": [], "limit": 100}`"""
    try:
        asked = msgspec.json.decode(body, type=Question)
        unknown = msgspec.json.decode(body).keys() - {"sql", "parameters", "limit"}
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HttpProblem(400, f'the body is {{"sql": "SELECT …"}}: {error}') from None
    if unknown:
        raise HttpProblem(400, f'the body has no member "{min(unknown)[:100]}": it has sql, parameters and limit')
    return asked


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LATEST


def form(request: web.Request) -> str:
    """How the answer is to be written: what `format` says, or else what `Accept` likes best."""
    media = available()
    if "format" in request.query:
        name = choice(request, "format", MEDIA, "")
        if name not in media:
            raise HttpProblem(400, f"format: {name} {arrow.MISSING} (on this device)", parameter="format")
        return name
    accepted = ",".join(request.headers.getall("Accept", []))
    if not accepted.strip():
        return next(iter(media))
    ranges = [_range(text) for text in accepted.split(",") if text.strip()]
    liked = {name: _liking(kind, ranges) for name, kind in media.items()}
    best = max(liked, key=liked.__getitem__)  # of equals the first
    if liked[best] <= 0:
        hint = "" if "arrow" in media else f"; {arrow.MEDIA_TYPE} {arrow.MISSING} (on this device)"
        raise HttpProblem(406, f"this can be had as {', '.join(media.values())}{hint}")
    return best


def _range(text: str) -> tuple[str, float]:
    kind, *settings = text.split(";")
    weight = 1.0
    for setting in settings:
        name, _, value = setting.partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
    return kind.strip().lower(), weight


def _liking(kind: str, ranges: list[tuple[str, float]]) -> float:
    """The weight of the narrowest range that holds a media type."""
    for wanted in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        weights = [weight for name, weight in ranges if name == wanted]
        if weights:
            return max(weights)
    return 0.0


def takes_gzip(request: web.Request) -> bool:
    offered = [_range(text) for text in request.headers.get("Accept-Encoding", "").split(",")]
    return any(name in ("gzip", "x-gzip", "*") and weight > 0 for name, weight in offered)


def shape(request: web.Request, stream: str, schema: Schema, clock: Clock) -> RowsQuery:
    """A question for a chart. It has no pages: all of it is one answer."""
    for name in ("limit", "cursor"):
        if name in request.query:
            text = f"{name}: an answer with `points` is whole and as long as they say: leave it out"
            raise HttpProblem(400, text, parameter=name)
    return RowsQuery(
        stream,
        keys(request, schema),
        time(request, "from", clock),
        time(request, "to", clock),
        descending=_descending(request),
        corrected=corrected(request, schema),
        points=number(request, "points", LIMIT, MOST_POINTS),
        fields=tuple(fields(request, schema).fields),
    )


def corrected(request: web.Request, schema: Schema) -> bool:
    """Whether corrected windows stand in the place of what they correct."""
    all_of_them = choice(request, "revisions", ("newest", "all"), "newest") == "all"
    return not all_of_them and schema.role == "windows" and {"start", "revision"} <= schema.fields.keys()


def _descending(request: web.Request) -> bool:
    return choice(request, "order", ("asc", "desc"), "asc") == "desc"


def _limit(request: web.Request) -> int:
    text = request.query.get("limit")
    if text == "all":
        return ALL
    try:
        return number(request, "limit", LIMIT, MOST)
    except HttpProblem:
        raise bad("limit", f"a number from 1 to {MOST}, or all", text or "") from None


class Page:
    """A part of a stream's rows, and where the next one begins.

    A cursor is the time of the last row given, and how many rows of that time have been: `1769860800000000000.2`.
    """

    def __init__(self, request: web.Request, stream: str, schema: Schema, clock: Clock) -> None:
        self.url = request.rel_url
        self.start, self.end = time(request, "from", clock), time(request, "to", clock)
        self.limit = _limit(request)
        self.descending = _descending(request)
        self.at: int | None = None
        self.skip = 0
        if (text := request.query.get("cursor")) is not None:
            cursor = _CURSOR.fullmatch(text)
            if not cursor or abs(int(cursor[1])) > LATEST or int(cursor[2]) > MOST:
                raise bad("cursor", "the one of a `next` link", text)
            self.at, self.skip = int(cursor[1]), int(cursor[2])
        start, end = self.start, self.end
        if self.at is not None and self.descending:
            end = self.at + 1 if end is None else min(end, self.at + 1)
        elif self.at is not None:
            start = self.at if start is None else max(start, self.at)
        # One row more than asked for tells whether there is a next page.
        limit = self.limit + self.skip + 1
        newest = corrected(request, schema)
        self.query = RowsQuery(stream, keys(request, schema), start, end, limit, self.descending, newest)

    @property
    def long(self) -> bool:
        return self.limit == ALL

    def walk(self, newest: int) -> Walk:
        """All rows from here on, as of now: with an end, since a slow reader would never reach that of a stream that grows."""
        query = replace(self.query, limit=ALL)
        if query.end is None:
            query = replace(query, end=newest + 1)
        return Walk(query, WALK_ROWS, self.skip)

    def cut(self, found: Frame) -> tuple[Frame, str | None]:
        """The rows of this page, and the link to the next one if there is one."""
        end = self.skip + self.limit
        page = found.take(slice(self.skip, end))
        return page, self._link(page.time) if len(found) > end else None

    def _link(self, times: Ints) -> str:
        last = int(times[-1])
        given = int(np.count_nonzero(times == last)) + (self.skip if last == self.at else 0)
        # `-1h` is another time with the next page: the link says which one was meant.
        pinned = {n: instant_text(t) for n, t in (("from", self.start), ("to", self.end)) if t is not None}
        return str(self.url.update_query({**pinned, "cursor": f"{last}.{given}"}))
