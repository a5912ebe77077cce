"""json takes what the standard library takes and the fields allow, and a bad reading costs only itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs.json import Json
from pipeline.component import Context, Decoded, ReadingSettings
from pipeline.frame import KeyTable

FIELDS = {"value": "float", "count": "int?", "open": "bool?", "text": "string?"}


def codec(unit: str = "ms", fields: dict[str, str] | None = None, **options: Any) -> Json:
    made = ReadingSettings(key="id", time="ts", time_unit=unit, fields=fields or FIELDS)
    return Json(made, options, Context("in", KeyTable()))


def taken(made: Json, decoded: Decoded) -> list[dict[str, Any]]:
    """The readings as dicts; times in ns."""
    assert decoded.times is not None
    named = {"id": [made.keys.names[int(code)] for code in decoded.keys], "ts": decoded.times.tolist()}
    named |= {name: c.tolist() for name, c in decoded.columns.items()}
    return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]


def oracle(line: str) -> dict[str, Any] | None:
    """One line by hand: the reading, or None if it must be refused."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    key, ts, value = row.get("id"), row.get("ts"), row.get("value")
    if not isinstance(key, str | int) or isinstance(key, bool) or not 0 < len(str(key)) <= 500:
        return None
    if not isinstance(ts, int | float) or isinstance(ts, bool) or abs(ts) > 9e12:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    kinds = {"count": int, "open": bool, "text": str}
    for name, kind in kinds.items():
        got = row.get(name)
        if got is not None and (not isinstance(got, kind) or (kind is int and isinstance(got, bool))):
            return None
    if row.get("count") is not None and abs(row["count"]) >= 2**63:
        return None
    ns = ts * 1_000_000 if isinstance(ts, int) else round(ts * 1_000_000)
    return {"id": str(key), "ts": ns, "value": float(value), **{name: row.get(name) for name in kinds}}


anything = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0.5, -2.25, 1e300])
    | st.text('ab\n"', max_size=3)
)
good = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", 7]),
        "ts": st.integers(0, 10**6) | st.just(5.5),
        "value": st.integers(-5, 5) | st.just(0.25),
    },
    optional={"count": st.integers(-9, 9), "open": st.booleans(), "text": st.text("xy", max_size=2), "more": anything},
)
bad = st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "ts", "value", "count", "open", "text"], anything))
lines = st.one_of(
    good.map(json.dumps), bad.map(json.dumps), st.sampled_from(["nonsense", '{"id": "a"', "[1, 2]", "5", "null"])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(lines, min_size=1, max_size=6), min_size=1, max_size=4))
def test_good_and_bad_lines_in_any_payloads(payloads: list[list[str]]) -> None:
    """What the oracle takes comes out, in order; of each payload the others are refused, each by its index."""
    made = codec()
    decoded = made.decode(["\n".join(p).encode() for p in payloads])
    wanted = [[oracle(line) for line in p] for p in payloads]
    if any(len(p) == 1 and p[0] == "[1, 2]" for p in payloads):
        return  # alone it is an array of two values
    assert taken(made, decoded) == [row for rows in wanted for row in rows if row is not None]
    assert list(decoded.counts) == [sum(row is not None for row in rows) for rows in wanted]
    refused = {(i, j) for i, rows in enumerate(wanted) for j, row in enumerate(rows) if row is None}
    assert {(r.payload, r.item) for r in decoded.refused} == refused


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (b'{"id": "a", "ts": 1, "value": 2}', 1),
        (b'{\n  "id": "a",\n  "ts": 1,\n  "value": 2\n}\n', 1),
        (b' [{"id": "a", "ts": 1, "value": 2},\n {"id": "b", "ts": 1, "value": 2}] ', 2),
        (b'\n{"id": "a", "ts": 1, "value": 2}\n\n\n{"id": "a", "ts": 2, "value": 2}\r\n', 2),
    ],
)
def test_one_value_an_array_or_lines(payload: bytes, count: int) -> None:
    decoded = codec().decode([payload])
    assert (list(decoded.counts), decoded.refused) == ([count], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"ts": 1, "value": 2}', "id: missing"),
        ('{"id": "a", "ts": 1}', "value: missing"),
        ('{"id": "a", "ts": 1, "value": "hot"}', "value: expected a number, got text"),
        ('{"id": "a", "ts": 1, "value": null}', "value: expected a number, got null"),
        ('{"id": "a", "ts": "x", "value": 2}', "ts: expected a number, got text"),
        ('{"id": "", "ts": 1, "value": 2}', "the key is empty"),
        ('{"id": "a", "ts": 1e30, "value": 2}', "ts: not a time in range"),
        ('{"id": "a", "ts": 1, "value": 2, "count": 99999999999999999999}', "count: beyond 64 bits"),
        ('{"id": "a", "ts": 1, "value": NaN}', "not JSON: "),
        ('{"id": "a"', "not JSON: "),
        ("", "empty"),
        ("[]", "empty"),
    ],
)
def test_a_reason_says_what_was_wanted(line: str, reason: str) -> None:
    decoded = codec().decode([line.encode()])
    assert [r.reason.startswith(reason) for r in decoded.refused] == [True], decoded.refused


def test_nan_where_the_field_may_be_one() -> None:
    decoded = codec(fields={"v": "float nan", "w": "float?"}).decode(
        [b'{"id": "a", "ts": 1, "v": NaN}\n{"id": "a", "ts": 1, "v": 1, "w": NaN}']
    )
    assert str(decoded.columns["v"].tolist()) == "[nan]"
    assert len(decoded.refused) == 1


@pytest.mark.parametrize(
    ("unit", "ts", "ns"),
    [
        ("s", "1700000000.25", 1_700_000_000_250_000_000),
        ("us", "5", 5_000),
        ("auto", "1700000000", 1_700_000_000_000_000_000),
        ("auto", '"2023-11-14T22:13:20.5Z"', 1_700_000_000_500_000_000),
        ("iso", '"2023-11-14T23:13:20+01:00"', 1_700_000_000_000_000_000),
        ("iso", '"2023-11-14T22:13:20.123456789Z"', 1_700_000_000_123_456_789),
    ],
)
def test_units_of_time(unit: str, ts: str, ns: int) -> None:
    decoded = codec(unit).decode([f'{{"id": "a", "ts": {ts}, "value": 1}}'.encode()])
    assert decoded.times is not None
    assert decoded.times.tolist() == [ns]


def test_fractions_after_many_whole_times() -> None:
    """The quick way for whole numbers is left when it must be, and nothing is lost or cut off."""
    made = codec("ms")
    body = "\n".join(f'{{"id": "a", "ts": {t}, "value": 1}}' for t in (1, 2, 3.5, 4, 5.25))
    decoded = made.decode([body.encode(), b'{"id": "a", "ts": 6, "value": 1}'])
    assert decoded.times is not None
    assert (decoded.times / 1e6).tolist() == [1, 2, 3.5, 4, 5.25, 6]


def test_rows_are_written_as_lines_or_as_an_array() -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "value": 1.5}, {"id": "b", "value": None}]
    assert codec().encode(rows) == b'{"id":"a","value":1.5}\n{"id":"b","value":null}\n'
    assert json.loads(codec(lines=False).encode(rows)) == rows
    assert codec().encode([]) == b""
