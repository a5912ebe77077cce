"""`anomaly`: how unusual each reading is for its key, learned as the readings come."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from operators.anomaly.recursion import DAY, DETECTORS, NUMBERS, PEAKS, WEEK, Hit, Memory, walk
from operators.anomaly.together import step
from pipeline.component import Operator, OperatorContext, Settings
from pipeline.frame import SECOND, Array, Column, Field, Frame, by_code
from pipeline.problem import did_you_mean
from pipeline.quantity import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = 3600 * SECOND
TOGETHER = 64  # keys from which on a step for all of them costs less than one for each
LARGEST = 1e100  # of a value that can be squared and summed; a larger one, or NaN, gets no score


class AnomalySettings(Settings, frozen=True):
    field: Annotated[str | None, Meta(description="The field that is watched. Absent: the only numeric one.")] = None
    alarms: Annotated[
        str,
        Meta(description='How many false alarms each key may raise: `"1 per week"`, `"3 per day"`, `"1 per 10 d"`.'),
    ] = "1 per week"
    prefix: Annotated[str, Meta(description="Put before the names of the fields that are added.")] = ""


class Anomaly(Operator):
    """Add to each reading how unusual it is for its key. No training, no look ahead; it learns as readings come.

        temperature     21.4   21.6   21.5   35.0     21.5   (missing)
        score           0      0      0      0.83     0      (missing)
        expected        21.5   21.5   21.5   21.5     22.8   (missing)
        detector                             recent
        anomaly         false  false  false  true     false  (missing)

        [operators.odd]
        type = "anomaly"
        input = "greenhouse"
        field = "temperature"
        alarms = "1 per week"

    All readings go on, with four fields more. `score`: from 0 (like ever) to 1; 0.5 is the key's own threshold. `anomaly`: the
    score is above 0.5. `detector`: the one that finds the reading the most unusual, missing where none does. `expected`: the
    value by that detector; else by the recent readings.
    The key sets its threshold itself so that in the long run there are no more alarms than `alarms` says, true or false, by
    event time: each alarm raises it by a step, and time lowers it again. So noise alarms about as often as promised (no more
    often than once in 500 readings), and a key that begins to be strange every hour alarms less and less for it.
    An event is told once: after an alarm, a reading's surprise is what exceeds that of the alarm, which fades in some
    hundred readings.

    Seven detectors look at each reading. `recent` and `slow`: its distance from a moving mean of about 10 and 50 readings;
    `level`: from that of 2,000; `shift`: the distance of the mean of 25 from that of 2,000; `day` and `week`: that of the
    last few readings from what the key did at this hour (UTC) of the day and of the week; `stuck`: repeats of one value.
    Each distance is put in relation to its own long-run spread, and compared with the five highest of the past, where
    the highest of 20 readings is one candidate: how rare is it by the tail that these show? The answer is a number
    of digits. The power mean of all seven is the surprise s, and the score is s / (s + threshold).

    Sources: Lavin and Ahmad 2015 (the benchmark NAB: judge a detector online, by its first alarm in a window); Ahmad, Lavin,
    Purdy, Agha 2017, doi 10.1016/j.neucom.2017.04.070 (errors of a prediction, judged by their long-run distribution); Siffer,
    Fouque, Termier, Largouët 2017, doi 10.1145/3097983.3098144 (peaks over threshold in a stream); Coles 2001 (block maxima,
    declustering); Gibbs and Candès 2021, arXiv 2106.00170 (a threshold with a promised rate whatever the distribution).

    Rates are in readings, made for one a minute to one an hour; put a `window` before it where they come faster.
    Readings are taken in the order in which they arrive. Missing, NaN and beyond 1e100: no score, and nothing learned.
    The first 100 readings of a key score 0; it needs a day to know the day, and a week to know the week.
    State: the numbers below. Memory: 2,312 bytes for each key.
    """

    presentation = ("alarms", "prefix")  # what was learned stays when these change

    def __init__(self, settings: AnomalySettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.field = _field(settings.field, context)
        self.rate = _rate(settings.alarms, context)
        self.names = [settings.prefix + name for name in ("score", "expected", "detector", "anomaly")]
        for name in self.names:
            if name in context.fields or name in (context.schema.key, "time"):
                context.problem("prefix", f'the input has "{name}" already; a prefix makes another name of it')
        kinds = ("float", "float", "string", "bool")
        added = {name: Field(kind, optional=True) for name, kind in zip(self.names, kinds, strict=True)}
        self.schema = context.schema._replace(fields={**context.fields, **added})
        self.numbers = context.per_key("numbers", [(name, "float") for name in NUMBERS])
        self.peaks = context.per_key("peaks", [(name, f"{PEAKS}f8") for name in DETECTORS])
        self.profile = context.per_key("profile", [("mean", f"{DAY + WEEK}f8"), ("visits", f"{DAY + WEEK}u1")])

    def on_frame(self, frame: Frame) -> Frame:
        values, good = self._values(frame)
        rows = np.flatnonzero(good)
        rows = rows[by_code(frame.key[rows])]
        score, expected = np.zeros(len(frame)), np.zeros(len(frame))
        detector, anomaly = np.full(len(frame), -1), np.zeros(len(frame), np.bool_)
        if len(rows):
            expected[rows], hits = self._score(frame, values, rows)
            if hits:
                at = rows[[hit.at for hit in hits]]
                score[at] = [hit.score for hit in hits]
                expected[at] = [hit.expected for hit in hits]
                detector[at] = [hit.detector for hit in hits]
                anomaly[at] = [hit.alarm for hit in hits]
        present = None if good.all() else good
        added = (
            Column(score, present),
            Column(expected, present),
            Column(_WORDS[detector], detector >= 0),
            Column(anomaly, present),
        )
        return frame.with_columns(dict(zip(self.names, added, strict=True)))

    def _values(self, frame: Frame) -> tuple[Array, Array]:
        values, present = frame[self.field]
        good = np.abs(values) <= LARGEST  # False for NaN
        return values.astype(np.float64), good if present is None else good & present

    def _score(self, frame: Frame, values: Array, rows: Array) -> tuple[Array | list[float], list[Hit]]:
        """Each key's readings in turn; `rows` are by key, and what is found is in their order, as are positions of hits.

        While there are many keys: their first readings together, then their second ones … The rest key by key.
        """
        keys = frame.key[rows]
        numbers = self.numbers.data.view(np.float64).reshape(-1, len(NUMBERS))
        columns = (values[rows], frame.time[rows] // HOUR, frame.time[rows] / SECOND)
        if keys[0] == keys[-1]:
            return self._score_one(int(keys[0]), numbers, columns)
        begins = np.flatnonzero(np.diff(keys, prepend=-1))
        lengths = np.diff(begins, append=len(rows))
        longest_first = np.argsort(-lengths, kind="stable")
        begins, lengths = begins[longest_first], lengths[longest_first]
        codes = keys[begins]
        expected = np.empty(len(rows))
        found: list[Hit] = []
        turn, speaking = 0, len(codes)
        if speaking >= TOGETHER:
            memory, table = self._memory(), np.ascontiguousarray(numbers[codes].T)
            while speaking >= TOGETHER:
                at = begins[:speaking] + turn
                value, hour, time = (column[at] for column in columns)
                said = step(table[:, :speaking], value, hour, time, memory, codes[:speaking], self.rate)
                expected[at] = said[0]
                found += [hit._replace(at=int(at[hit.at])) for hit in said[1]]
                turn += 1
                speaking = int(np.searchsorted(-lengths, -turn))  # they are in falling order
            numbers[codes] = table.T
        for code, begin, length in zip(codes[:speaking].tolist(), begins.tolist(), lengths.tolist(), strict=False):
            part = slice(begin + turn, begin + length)
            expected[part], hits = self._score_one(code, numbers, [column[part] for column in columns])
            found += [hit._replace(at=part.start + hit.at) for hit in hits]
        return expected, found

    def _score_one(self, key: int, numbers: Array, columns: Sequence[Array]) -> tuple[list[float], list[Hit]]:
        readings = zip(*(column.tolist() for column in columns), strict=True)
        after, expected, hits = walk(numbers[key].tolist(), readings, self._memory(), key, self.rate)
        numbers[key] = after
        return expected, hits

    def _memory(self) -> Memory:
        peaks = self.peaks.data.view(np.float64).reshape(-1, len(DETECTORS), PEAKS)
        return Memory(peaks, self.profile.data["mean"], self.profile.data["visits"])


_WORDS = np.array([*DETECTORS, ""], object)  # by number; -1 is none


def _field(name: str | None, context: OperatorContext) -> str:
    """The field that is watched."""
    numeric = [n for n, f in context.fields.items() if f.kind in ("float", "int")]
    if name is None and len(numeric) != 1:
        there = f"there are {', '.join(numeric)}" if numeric else "the input has no number"
        context.problem("field", f"which field is watched? ({there})")
    elif name is not None and name not in context.fields:
        context.problem("field", f'"{name}" is not a field{did_you_mean(name, numeric)}')
    elif name is not None and name not in numeric:
        context.problem("field", f'"{name}" is {context.fields[name].kind}; only numbers can be unusual')
    return name or (numeric[0] if numeric else "")


_PER = re.compile(r"\s*(\d+(?:\.\d+)?)\s+per\s+(.+?)\s*")
_UNITS = {"hour": "1 h", "day": "1 d", "week": "7 d", "month": "30 d", "year": "365 d"}


def _rate(text: str, context: OperatorContext) -> float:
    """Alarms a second."""
    if match := _PER.fullmatch(text):
        try:
            per = duration(_UNITS.get(match[2].lower(), match[2]))
        except ValueError as error:
            context.problem("alarms", f"{error}, or hour, day, week, month or year")
            return 0.0
        if per and float(match[1]):
            return float(match[1]) * SECOND / per
    context.problem("alarms", f'"{text}" is no rate of alarms; write it as "1 per week" or "2 per 10 d"')
    return 0.0
