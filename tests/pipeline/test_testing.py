"""What the test kit promises: an operator that breaks a rule does not get through."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import find, given, settings

from pipeline.component import Operator, OperatorContext, Settings, State
from pipeline.frame import NEVER, SECOND, Column, Field, Frame, Ints, KeyTable, Schema, column
from pipeline.testing import READINGS, Mark, Stream, compact, end, frames, make, parse, run, streams, tick


class NoSettings(Settings, frozen=True):
    pass


class Good(Operator):
    """The running number of each key's readings; nothing is wrong with it."""

    def __init__(self, settings: NoSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.seen = context.per_key("seen", [("n", "int")])
        self.schema = Schema(context.schema.key, {"n": Field("int")})

    def on_frame(self, frame: Frame) -> Frame:
        n = np.empty(len(frame), np.int64)
        for i, key in enumerate(frame.key.tolist()):
            self.seen.data["n"][key] += 1
            n[i] = self.seen.data["n"][key]
        return self.out(frame, Column(n))

    def out(self, frame: Frame, n: Column) -> Frame:
        return Frame(frame.time, frame.key, frame.seq, {"n": n}, frame.progress)


def test_a_good_operator_gets_through() -> None:
    found = run(Good, {}, "a1 b1 a- tick@5 a2 end")
    assert [(row["key"], row["time"] // SECOND, row["n"]) for row in found] == [
        ("a", 0, 1),
        ("b", 1, 1),
        ("a", 2, 2),
        ("a", 4, 3),
    ]


# --- those that are not ---------------------------------------------------------------------------------------------


class CountsFrames(Good):
    def on_frame(self, frame: Frame) -> Frame:
        return self.out(frame, Column(np.arange(len(frame))))


class CountsTicks(Good):
    """An empty Frame, in which no time passes, is a step like any other."""

    ticks = 0

    def on_frame(self, frame: Frame) -> Frame:
        self.ticks += not len(frame)
        return self.out(frame, Column(np.full(len(frame), self.ticks)))


class ForgetsAtRestart(Good):
    def snapshot(self) -> State:
        return {"seen": np.zeros_like(super().snapshot()["seen"])}


class GivesItsStateAway(Good):
    def snapshot(self) -> State:
        return {"seen": self.seen.data}


class WritesToItsInput(Good):
    def on_frame(self, frame: Frame) -> Frame:
        frame.time[:] = 0
        return super().on_frame(frame)


class AddsToItsInput(Good):
    def on_frame(self, frame: Frame) -> Frame:
        frame.columns["more"] = frame["value"]  # type: ignore[index]
        return super().on_frame(frame)


class Backwards(Good):
    def on_frame(self, frame: Frame) -> Frame:
        return super().on_frame(frame).take(slice(None, None, -1))


class OfAnotherKind(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return super().out(frame, Column(n.values.astype(float)))


class OfAnotherName(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return Frame(frame.time, frame.key, frame.seq, {"m": n}, frame.progress)


class MissingUnsaid(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return super().out(frame, Column(np.zeros_like(n.values), n.values > 1))


class SomethingUnderMissing(Good):
    def __init__(self, settings: NoSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema(context.schema.key, {"n": Field("int", optional=True)})

    def out(self, frame: Frame, n: Column) -> Frame:
        return super().out(frame, Column(n.values, n.values > 1))


class NotANumber(Good):
    def __init__(self, settings: NoSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema(context.schema.key, {"n": Field("float")})

    def out(self, frame: Frame, n: Column) -> Frame:
        return super().out(frame, Column(n.values * np.nan))


class UnknownKeys(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return Frame(frame.time, frame.key + np.int32(9), frame.seq, {"n": n}, frame.progress)


class OldNumbers(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return Frame(frame.time, frame.key, np.zeros_like(frame.seq), {"n": n}, frame.progress)


class NewNumbers(Good):
    def out(self, frame: Frame, n: Column) -> Frame:
        return Frame(frame.time, frame.key, frame.seq + 9, {"n": n}, frame.progress)


class Unannounced(Good):
    """A row at each tick, of which `due` says nothing."""

    def on_frame(self, frame: Frame) -> Frame:
        if len(frame) or frame.watermark < 5 * SECOND:
            return super().on_frame(frame.none())
        one: Ints = np.array([frame.progress.next_seq])
        return Frame(one * 0, np.zeros(1, np.int32), one, {"n": Column(one)}, frame.progress)


class AnnouncedTooLate(Unannounced):
    def due(self) -> int | None:
        return 100 * SECOND


class AlwaysDue(Good):
    def due(self) -> int | None:
        return NEVER


WRONG: dict[type[Operator], str] = {
    CountsFrames: "one reading at a time",
    CountsTicks: "whole it is",
    ForgetsAtRestart: "restart",
    GivesItsStateAway: "give copies",
    WritesToItsInput: "read-only",
    AddsToItsInput: "does not support item assignment",
    Backwards: "order of arrival",
    OfAnotherKind: "n is float64; int was said",
    OfAnotherName: "columns",
    MissingUnsaid: "does not say that it may be",
    SomethingUnderMissing: "the zero of its type",
    NotANumber: "NaN",
    UnknownKeys: "key table",
    OldNumbers: "earlier step",
    NewNumbers: "later step",
    Unannounced: "nobody would have ticked",
    AnnouncedTooLate: "`due` had said",
    AlwaysDue: "due at",
}


@pytest.mark.parametrize(("cls", "says"), WRONG.items())
def test_a_wrong_one_does_not(cls: type[Operator], says: str) -> None:
    """And it is said what is wrong."""
    with pytest.raises((AssertionError, ValueError, TypeError), match=says):
        run(cls, {}, "a1 b1 a2 tick@5 a3")


def test_a_wrong_setting_is_not_taken() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        make(Good, {"no": 1})


# --- readings -------------------------------------------------------------------------------------------------------


def test_text_is_readings() -> None:
    """A second between them unless `@` says when; `-` alone is missing."""
    assert parse("a31 b-4@2.5 long_name- tick@20 a1e-3 end") == [
        {"key": "a", "time": 0, "value": 31.0},
        {"key": "b", "time": 2.5, "value": -4.0},
        {"key": "long_name", "time": 2, "value": None},
        tick(20),
        {"key": "a", "time": 4, "value": 0.001},
        end(),
    ]
    with pytest.raises(ValueError, match="is no reading"):
        parse("a1 1a")


def test_compact_is_the_way_back() -> None:
    assert compact(parse("a31 b-4.5 a-")) == "a31 b-4.5 a-"  # type: ignore[arg-type]


def test_times_are_seconds_or_ns() -> None:
    rows = [{"key": "a", "time": time, "value": 1.0} for time in (1, 1.5, 10**10)]
    (frame,) = frames(rows, READINGS, KeyTable())
    assert frame.time.tolist() == [SECOND, 1_500_000_000, 10**10]


def test_frames_end_at_marks_and_cuts() -> None:
    """The watermark before the first reading is NEVER; a tick is part of the step that it ends."""
    one, two, three = frames("a1@5 b1@3 tick@9 a1@6 end", READINGS, KeyTable(), disorder=1, cuts=[1])
    assert [frame.seq.tolist() for frame in (one, two, three)] == [[0], [1], [2]]
    assert [frame.watermark_before().tolist() for frame in (one, two, three)] == [[NEVER], [4 * SECOND], [9 * SECOND]]
    assert [frame.watermark for frame in (one, two, three)] == [4 * SECOND, 9 * SECOND, 9 * SECOND]
    assert [frame.progress.next_seq for frame in (one, two, three)] == [1, 2, 3]
    assert [frame.ended for frame in (one, two, three)] == [False, False, True]


ANY = Schema("key", {kind: Field(kind) for kind in ("float", "int", "bool", "string", "time")})


@settings(deadline=None)
@given(streams(ANY))
def test_streams_fit_their_schema(stream: Stream) -> None:
    """Values of every kind; missing only where they may be."""
    for reading in (r for r in stream if not isinstance(r, Mark)):
        for name, field in ANY.fields.items():
            assert column(field.kind, [reading[name]]).present is None


def test_streams_have_what_goes_wrong() -> None:
    """Late readings, missing values, ticks, an end."""

    def late(stream: Stream) -> bool:
        times = [r["time"] for r in stream if not isinstance(r, Mark)]
        return times != sorted(times)

    def missing(stream: Stream) -> bool:
        return any(r["value"] is None for r in stream if not isinstance(r, Mark))

    for one in (late, missing, lambda s: any(r == end() for r in s), lambda s: isinstance(s[0], Mark) if s else False):
        assert find(streams(), one) is not None
    plain: Any = find(streams(ticks=False), lambda stream: len(stream) > 1)
    assert not any(isinstance(item, Mark) for item in plain)
