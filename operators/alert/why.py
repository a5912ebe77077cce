"""Why an alert fires for a key, or does not: its conditions part by part at one reading, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operators.alert.watch import ENDING, OFF, PENDING, SET, Latch, Watch
from pipeline.component import OperatorContext
from pipeline.frame import instant_text
from pipeline.parts import NUMBERS
from pipeline.quantity import Duration
from pipeline.syntax import clauses

if TYPE_CHECKING:
    from operators.alert import Alert
    from operators.alert.levels import Level
    from pipeline.expression import Expression
    from pipeline.frame import Frame, Schema
    from pipeline.syntax import Clause

STATES = {OFF: "off", PENDING: "waits", SET: "firing", ENDING: "ending"}


def explain(alert: Alert, key: int, readings: Frame) -> dict[str, Any]:
    """Of the last of these readings of a key, in order. They go through new conditions: those of the alert remember what
    they have seen, and have seen these before."""
    old = alert.context
    context = OperatorContext(old.name, old.schema, old.keys, sides=old.sides)
    fresh = type(alert)(alert.settings, context)
    schema = old.schema
    if fresh.rate:
        schema = fresh.rate.schema
        if len(readings):
            readings = readings.with_columns({fresh.rate.name: fresh.rate.measure(readings).column})
    watch = _watch(alert, key)
    latches = zip(fresh.levels, watch.latches, strict=False)
    levels = [_level(level, latch, _Conditions(context, schema, readings)) for level, latch in latches]
    settings = alert.settings
    more: dict[str, Any] = {}
    if settings.repeat:
        more["repeat"] = str(settings.repeat)
    if watch.silence is not None:
        heard = watch.silence.state != OFF and watch.spoke
        more["silence"] = {"silent_for": str(settings.silent_for), **_state(watch.silence)}
        more["silence"]["heard"] = instant_text(watch.silence.since) if heard else None
    if alert.inhibit:
        fires = alert.inhibit.state.data[key]
        more["inhibit"] = {name: bool(fires[name]) for name in alert.inhibit.schemas}
    if settings.flapping:
        more["flapping"] = {"changes": settings.flapping.changes, "within": str(settings.flapping.within)}
    return {
        "firing": watch.told >= 0,
        "levels": levels,
        **more,
        "group": settings.group is not None,
        "because": _because(alert, watch, levels, more, heard=len(readings) > 0),
    }


def _watch(alert: Alert, key: int) -> Watch:
    """What is known of a key; of one at rest, that it is."""
    alert._grow()
    watch = alert.watches.get(key) or Watch(key, alert.rules)
    alert._load(watch)
    return watch


class _Conditions:
    """Texts of conditions -> what the last reading makes of them."""

    def __init__(self, context: OperatorContext, schema: Schema, readings: Frame) -> None:
        self.context = context
        self.schema = schema
        self.readings = readings

    def __call__(self, text: str) -> dict[str, Any]:
        return {"text": text, "is": self._value(text), "parts": [self._part(clause) for clause in clauses(text)]}

    def _part(self, clause: Clause) -> dict[str, Any]:
        sides = clause.sides
        part = {"text": clause.text, "is": self._value(clause.text), "wanted": clause.wanted}
        if sides and all(self._expression(side).kind in NUMBERS for side in sides):
            left, right = map(self._value, sides)
            part |= {"left": left, "right": right}
            near = left is not None and right is not None and left == left and right == right  # not NaN
            part["distance"] = abs(left - right) if near else None
        return part

    def _expression(self, text: str) -> Expression:
        return self.context.expression(text, "why", schema=self.schema)

    def _value(self, text: str) -> Any:
        if not len(self.readings):
            return None
        (last,) = self._expression(text)(self.readings).take(slice(-1, None)).tolist()
        return last


def _level(level: Level, latch: Latch, conditions: _Conditions) -> dict[str, Any]:
    return {
        "level": level.name,
        "when": conditions(level.when.text),
        "clear": None if level.clear is None else conditions(level.clear.text),
        "for": str(Duration(level.hold)),
        "keep": str(Duration(level.keep)),
        **_state(latch),
    }


def _state(latch: Latch) -> dict[str, Any]:
    until = instant_text(latch.until) if latch.state in (PENDING, ENDING) else None
    return {
        "state": STATES[latch.state],
        "since": None if latch.state == OFF else instant_text(latch.since),
        "until": until,
    }


def _because(alert: Alert, watch: Watch, levels: list[dict[str, Any]], more: dict[str, Any], *, heard: bool) -> str:
    """In a sentence, for the one who asks."""
    if watch.told >= 0:
        return f"it fires, since {instant_text(watch.told_since)}"
    if watch.actual >= 0 and watch.inhibited:
        others = " and ".join(name for name, fires in more["inhibit"].items() if fires)
        return f"its condition holds, but it is not raised while {others} fires for this key"
    if watch.actual >= 0:
        return "its condition holds, but `flapping` holds the row back"
    for level in levels:
        if level["state"] == "waits":
            return f"its condition holds since {level['since']}; if it goes on, it fires at {level['until']}"
    if not levels:
        return "it fires when the key is silent, and the key is not"
    if not heard:
        return "no reading of this key is recorded, so it cannot be said what the condition gave"
    when = levels[0]["when"]
    if when["is"] is None:
        return f"`{when['text']}` is unknown: {_missing(when['parts'])}"
    if when["is"]:
        return (
            f"`{when['text']}` holds for the newest recorded reading, but the alert has not taken it so: it came late"
        )
    return f"`{when['text']}` is false: " + "; ".join(
        _short(part) for part in when["parts"] if part["is"] is (not part["wanted"])
    )


def _missing(parts: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"`{part['text']}` has no answer, since a value is missing" for part in parts if part["is"] is None
    )


def _short(part: dict[str, Any]) -> str:
    if part.get("distance") is None:
        return f"`{part['text']}` is {'false' if part['wanted'] else 'true'}"
    return f"`{part['text']}` is {part['distance']:.6g} away ({part['left']:.6g} and {part['right']:.6g})"
