"""What `join` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.join import Join
from pipeline.frame import SECOND, Field, KeyTable, Schema, Sided
from pipeline.journal import state
from pipeline.testing import READINGS, Mark, Stream, end, file, frames, make, parse, run, streams, tick

DOORS = Schema("key", {"door": Field("bool"), "mode": Field("string", optional=True), "count": Field("int")})

# What the contract tries (tests/test_contract.py).
SIDES = {"doors": DOORS}
FILES = ["key,limit,room\na,1.5,open\nb,2,shut\n", "key,limit,room\nb,3,shut\n", "key,limit,room\nzzz,0,hall\n"]
EXAMPLES: list[dict[str, Any]] = [
    {"with": "doors", "prefix": "its_"},
    {"with": "doors", "fields": ["door", "time"], "prefix": "d_", "tolerance": "2 s", "missing": "drop"},
    {"with": "doors", "on": ["mode"], "fields": ["door"], "prefix": "d_"},
    {"with": "doors", "on": [], "fields": ["count"], "prefix": "d_", "max_waiting": 3},
    {"table": "sensors.csv", "fields": {"limit": "float", "room": "string?"}},
    {"table": "sensors.csv", "on": {"mode": "room"}, "fields": {"limit": "float"}, "missing": "drop"},
]


def joined(rows: list[dict[str, Any]], field: str = "its_value") -> str:
    """`key, value, what was found` of each row."""
    return " ".join(f"{r['key']}{r['value']:g}:{'-' if r[field] is None else format(r[field], 'g')}" for r in rows)


def of(stream: str | Stream, **more: Any) -> str:
    return joined(run(Join, {"with": "w", "prefix": "its_", **more}, stream))


# --- as of a time ---------------------------------------------------------------------------------------------------


def test_the_newest_at_or_before_each_reading() -> None:
    """In event time, whichever came first; of two of one time the one that came later."""
    assert of("w:a1@0 w:a2@5 a10@4 a11@5 w:a3@5 a12@6 w:a9@7 end") == "a10:1 a11:3 a12:3"
    assert of("a10@4 a11@5 w:a1@0 w:a2@5 end") == "a10:1 a11:2"


def test_of_the_same_key_only() -> None:
    assert of("w:a1@0 w:b2@1 a10@2 b20@2 c30@2 end") == "a10:1 b20:2 c30:-"


def test_a_row_leaves_when_both_are_past_its_time() -> None:
    """The watermark is the lowest of both; at the row's own time another one may come yet."""
    rows = run(Join, {"with": "w", "prefix": "its_"}, "a10@4 w:a1@4 w:a2@4 a11@5 w:a3@5")
    assert joined(rows) == "a10:2"
    assert joined(run(Join, {"with": "w", "prefix": "its_"}, "a10@4 w:a1@4 a11@9 tick@5")) == "a10:1"


def test_within_the_tolerance() -> None:
    assert of("w:a1@0 a10@2 a11@3 end", tolerance="2 s") == "a10:1 a11:-"
    assert of("w:a1@0 a10@2 a11@3 end", tolerance="2 s", missing="drop") == "a10:1"


def test_late_readings() -> None:
    """One of the input goes to `late`; one of `with` is given to rows that leave after it, unless there is a newer."""
    late = "w:a1@0 a10@0 a11@9 w:a2@9 a12@5 w:a3@7 a13@10 w:a4@10 w:a5@8 a14@11 end"
    assert of(late) == "a10:1 a11:2 a13:4 a14:4"
    assert [r["value"] for r in run(Join, {"with": "w", "prefix": "its_"}, late, output="late")] == [12]
    assert of("w:a1@0 a10@3 a11@9 w:b1@9 w:a2@2 a12@10 w:b1@11 end") == "a10:1 a11:2 a12:2"
    assert of("w:a1@3 w:b1@9 a9@9 w:a2@2 a10@9 w:b1@11 a11@11 end") == "a9:1 a10:1 a11:1"
    assert of("w:a1@0 w:b1@9 b9@9 w:a2@5 a10@9 end") == "b9:1 a10:2"


def test_of_too_many_the_oldest_go() -> None:
    """Readings that wait leave with what there is; of `with` the oldest is forgotten, and no newer one taken for it."""
    assert of("w:a1@1 a10@3 a11@2 a12@4 w:a2@2 w:a3@3 end", max_waiting=2) == "a11:1 a10:3 a12:3"
    assert of("a9@0 w:a1@1 w:a2@2 w:a3@3 w:a4@4 a10@2 a11@3 a12@4 end", max_waiting=2) == "a9:- a10:2 a11:3 a12:4"
    assert of("a9@0 w:a1@1 w:a2@2 w:a3@3 w:a4@4 a8@1 end", max_waiting=2) == "a9:- a8:-"


Asof = tuple[str, float, float | None]


def naive(stream: Stream, disorder: int, tolerance: int) -> tuple[list[Asof], list[float]]:
    """The oracle: one arrival at a time; what leaves, and what is late."""
    newest = {"": -99.0, "w": -99.0}
    waiting: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = []
    left: list[Asof] = []
    late: list[float] = []
    reached = -99.0

    def leave(upto: float) -> None:
        for reading in sorted((r for r in waiting if r["time"] < upto), key=lambda r: r["time"]):
            waiting.remove(reading)
            fits = [h for h in heard if h["key"] == reading["key"] and h["time"] <= reading["time"]]
            best = max(fits, key=lambda h: (h["time"], heard.index(h)), default=None)
            found = best["value"] if best is not None and reading["time"] - best["time"] <= tolerance else None
            left.append((reading["key"], reading["id"], found))

    for n, item in enumerate(stream):
        if isinstance(item, Mark):
            if item.ended:
                leave(float("inf"))
            else:
                assert item.watermark is not None
                reached = max(reached, item.watermark / SECOND)
                newest = {name: max(mark, reached) for name, mark in newest.items()}
                leave(reached)
            continue
        assert isinstance(item, dict)
        side = item.get("input", "")
        if side:
            heard.append({**item, "n": n})
        elif item["time"] < reached:
            late.append(item["id"])
        else:
            waiting.append(item)
        newest[side] = max(newest[side], item["time"] - disorder)
        reached = max(reached, min(newest.values()))
        leave(reached)
    return left, late


@settings(deadline=None, max_examples=40)
@given(streams(READINGS, sides={"w": READINGS}, keys="ab", max_size=20, late=6), st.integers(0, 3), st.integers(0, 5))
def test_the_columns_agree_with_a_plain_loop(stream: Stream, disorder: int, tolerance: int) -> None:
    schema = Schema("key", {"id": Field("int")})
    numbered: Stream = [{**r, "id": i} if isinstance(r, dict) else r for i, r in enumerate(stream)]
    example = {"with": "w", "tolerance": f"{tolerance} s"}
    kit: dict[str, Any] = {"schema": schema, "sides": {"w": READINGS}, "disorder": disorder}
    left, late = naive(numbered, disorder, tolerance)
    assert [(r["key"], r["id"], r["value"]) for r in run(Join, example, numbered, **kit)] == left
    assert [r["id"] for r in run(Join, example, numbered, output="late", **kit)] == late


@pytest.mark.parametrize("max_waiting", [1, 2, 3])
@settings(deadline=None, max_examples=20)
@given(stream=streams(READINGS, sides={"w": READINGS}, max_size=16, late=6))
def test_the_limit_is_kept_to_whatever_the_cut(max_waiting: int, stream: Stream) -> None:
    """Every reading that is not late leaves once, and no later than when too many wait (the kit tries every cut)."""
    example = {"with": "w", "prefix": "its_", "max_waiting": max_waiting}
    stream = [*(item for item in stream if item != end()), end()]
    left = run(Join, example, stream)
    late = run(Join, example, stream, output="late")
    assert len(left) + len(late) == sum(isinstance(r, dict) and "input" not in r for r in stream)
    operator, _ = make(Join, example)
    assert isinstance(operator, Join)
    assert operator.asof is not None
    keys = operator.context.keys
    for own, beside in zip(
        frames(only(stream, ""), READINGS, keys), frames(only(stream, "w"), READINGS, keys), strict=True
    ):
        operator.on_frame(Sided(own, {"w": beside}))
        state = operator.snapshot()
        assert max(len(state["waiting"][0]), len(state["recent"][0])) <= max_waiting


def only(stream: Stream, name: str) -> Stream:
    """The readings that come by one stream, and all marks."""
    return [r for r in stream if isinstance(r, Mark) or r.get("input", "") == name]


def test_on_fields() -> None:
    """Named alike or not; a missing value equals nothing; [] is one group, for a stream that has no key."""
    rooms = Schema("sensor", {"room": Field("string", optional=True), "value": Field("float")})
    weather = Schema(None, {"place": Field("string", optional=True), "wind": Field("float")})
    stream: Stream = [
        {"input": "w", "key": "", "time": 1, "place": "hall", "wind": 1.0},
        {"input": "w", "key": "", "time": 2, "place": None, "wind": 2.0},
        *(
            {"key": key, "time": 3, "room": room, "value": 0.0}
            for key, room in (("a", "hall"), ("b", "attic"), ("c", None))
        ),
        end(),
    ]

    def winds(on: Any) -> list[Any]:
        found = run(Join, {"with": "w", "on": on, "fields": ["wind"]}, stream, schema=rooms, sides={"w": weather})
        return [row["wind"] for row in found]

    assert winds({"room": "place"}) == [1, None, None]
    assert winds([]) == [2, 2, 2]


def test_a_group_too_many_changes_nothing() -> None:
    """So that the graph can set aside the reading that is guilty, and push the others again."""
    places = Schema("key", {"room": Field("string"), "value": Field("float")})
    keys = KeyTable(limit=2)
    operator, _ = make(Join, {"with": "w", "on": "room", "fields": ["value"], "prefix": "w_"}, places, keys=keys)
    (frame,) = frames([{"key": "a", "time": 0, "room": room, "value": 1.0} for room in ("x", "y")], places, keys)
    before = state.pack(operator.snapshot())
    with pytest.raises(ValueError, match="too many keys"):
        operator.on_frame(Sided(frame, {"w": frame}))
    assert state.pack(operator.snapshot()) == before


def test_memory() -> None:
    """What the docstring says, in the bytes of the snapshot: by key, by reading that is newer, by reading that waits."""
    of = Schema("key", {"value": Field("float")})

    def size(keys: int, newer: int, waits: int) -> int:
        operator, _ = make(Join, {"with": "w", "fields": ["value"], "prefix": "w_"}, of)
        table = operator.context.keys
        first: Stream = [{"key": f"k{i}", "time": 0, "value": 1.0} for i in range(keys)]
        heard: Stream = [*first, tick(10), *({"key": "k0", "time": 20, "value": 1.0} for _ in range(newer)), tick(10)]
        own: Stream = [tick(10), *({"key": "k0", "time": 20, "value": 1.0} for _ in range(waits)), tick(10)]
        for here, there in zip(frames(own, of, table), frames(heard, of, table), strict=True):
            low = here.progress._replace(after=10 * SECOND, watermark=10 * SECOND)
            operator.on_frame(Sided(here.with_progress(low), {"w": there.with_progress(low)}))
        return len(state.pack(operator.snapshot()))

    nothing = size(1, 0, 0)
    assert (size(1001, 0, 0) - nothing) / 1000 <= 24 + 9 + 1
    assert (size(1, 1000, 0) - nothing) / 1000 <= 24 + 9 + 1
    assert (size(1, 0, 1000) - nothing) / 1000 <= 28 + 9 + 1


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ({}, ("with", 'a join has either "with" (a stream) or "table" (a file)')),
        ({"with": "w"}, ("prefix", 'the input has a "value", too: set a prefix, or choose other fields')),
        ({"with": "w", "fields": ["valeu"]}, ("fields", '"valeu" is not a field of "w" (did you mean "value"?)')),
        ({"with": "w", "on": "roon", "prefix": "x"}, ("on", '"roon" is not a field of the input')),
        (
            {"with": "w", "on": "value", "prefix": "x"},
            ("on", '"value" of the input is a float; text, whole numbers and'),
        ),
        ({"table": "t.csv"}, ("fields", "say what is taken of the table, with types")),
        ({"table": "t.txt", "fields": {"x": "float"}}, ("format", 'the ending of "t.txt" does not tell its format')),
        ({"table": "t.csv", "fields": {"x": "flaot"}}, ("fields.x", '"flaot" is not a type (did you mean "float"?)')),
        ({"table": "t.csv", "fields": {"key": "float"}}, ("fields.key", 'is in "on" already')),
        (
            {"table": "t.csv", "fields": {"x": "float"}, "on": "kye"},
            ("on", '"kye" is not a field of the input (did you'),
        ),
        (
            {"table": "t.csv", "fields": {"x": "float"}, "tolerance": "1 s"},
            ("tolerance", "the rows of a table have no"),
        ),
    ],
)
def test_wrong_settings_are_told(example: dict[str, Any], told: tuple[str, str]) -> None:
    _, problems = make(Join, example)
    assert any(setting == told[0] and text.startswith(told[1]) for setting, text in problems), problems


# --- in a table -----------------------------------------------------------------------------------------------------

TABLE: dict[str, Any] = {"table": "t.csv", "fields": {"limit": "float", "room": "string?"}}


def test_each_reading_is_given_its_row() -> None:
    """As the table is when the reading comes; before there is one, and where it has no such row, nothing."""
    stream: Stream = [
        *parse("a1"),
        file("key,limit,room\na,10,hall\nb,20,\n"),
        *parse("a2 b2 c2"),
        file("key,limit,room\nc,30,attic\n"),
        *parse("a3 c3"),
    ]
    found = [(r["key"], r["value"], r["limit"], r["room"]) for r in run(Join, TABLE, stream)]
    assert found == [
        ("a", 1, None, None),
        ("a", 2, 10, "hall"),
        ("b", 2, 20, None),
        ("c", 2, None, None),
        ("a", 3, None, None),
        ("c", 3, 30, "attic"),
    ]
    assert [r["key"] for r in run(Join, {**TABLE, "missing": "drop"}, stream)] == ["a", "b", "c"]


def test_the_table_is_json_as_well() -> None:
    stream: Stream = [file('[{"key": "a", "limit": 10}]'), *parse("a1")]
    ((row),) = run(Join, {**TABLE, "table": "t.json"}, stream)
    assert (row["limit"], row["room"]) == (10, None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no reading"),
        ("key,limit,room\n", "there is no reading"),
        ("\n\n", "there is no reading"),
        ("key,limit,room\na,1,\na,2,\n", r"rows 1 and 2 have the same key"),
        ("key,limit,room\na,1,\nb,warm,\n", r"row 2: limit"),
        ("key,room\na,hall\n", "limit"),
        ("\x00\xff", "row 1: "),
    ],
)
def test_what_is_no_table_is_refused(content: str, told: str) -> None:
    operator, _ = make(Join, TABLE)
    (outside,) = operator.context.files.values()
    with pytest.raises(ValueError, match=told):
        outside.read(content.encode("latin-1"))


@settings(deadline=None, max_examples=40)
@given(streams(READINGS, files=FILES))
def test_a_table_agrees_with_a_dictionary(stream: Stream) -> None:
    table: dict[str, list[str]] = {}
    expected: list[Any] = []
    for item in stream:
        if isinstance(item, dict):
            cells = table.get(item["key"], [None, None])
            expected.append((item["key"], cells[0] and float(cells[0]), cells[1]))
        elif item.content is not None:
            table = {line.split(",")[0]: line.split(",")[1:] for line in item.content.split()[1:]}
    assert [(r["key"], r["limit"], r["room"]) for r in run(Join, TABLE, stream)] == expected
