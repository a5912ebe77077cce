"""What of an MQTT topic names something, and a message with its topic as text."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import orjson

_PART = r"topic(?:\[-?\d{1,3}\])?"
_NAMED = re.compile(f"{_PART}(?:/{_PART})*")
_INDEX = re.compile(r"topic(?:\[(-?\d+)\])?")
FILLER = "-"  # a level of a made-up topic that nothing is read from


class TopicPart:
    """`topic`, one level of it (`topic[1]`, from 0; `topic[-1]` is the last), or several (`topic[1]/topic[2]`).

    ValueError if it is none of these.
    """

    def __init__(self, text: str) -> None:
        if not self.is_one(text):
            raise ValueError(f'"{text}" is no part of a topic; write "topic", "topic[1]" or "topic[1]/topic[2]"')
        self.text = text
        self.levels = [int(index) if index else None for index in _INDEX.findall(text)]

    @staticmethod
    def is_one(text: str) -> bool:
        return _NAMED.fullmatch(text) is not None

    def of(self, topic: str) -> str | None:
        """The part of this topic; None if it has none."""
        if self.levels == [None]:
            return topic or None
        parts = topic.split("/")
        try:
            return "/".join(topic if level is None else parts[level] for level in self.levels) or None
        except IndexError:
            return None


def made_up(values: Mapping[TopicPart, str]) -> str:
    """A topic of which these are parts: for tests, which name a key and no topic."""
    forward: dict[int, str] = {}
    backward: dict[int, str] = {}
    for part, value in values.items():
        if part.levels == [None]:
            return value
        for level, text in zip(part.levels, value.split("/", len(part.levels) - 1), strict=False):
            if level is not None:
                (forward if level >= 0 else backward)[level] = text
    head = [forward.get(i, FILLER) for i in range(max(forward, default=-1) + 1)]
    tail = [backward.get(i, FILLER) for i in range(min(backward, default=0), 0)]
    return "/".join(head + tail) or FILLER


# --- a message as text: what the dead letters keep -------------------------------------------------------------------


def sealed(topic: str, payload: bytes, *, whole: bool = True) -> bytes:
    """A message in one text, from which `opened` makes it again; `whole`: not if only its beginning is left."""
    told: dict[str, str] = {"topic": topic}
    try:
        told["payload" if whole else "begins"] = payload.decode()
    except UnicodeDecodeError:
        if whole:
            told["base64"] = base64.b64encode(payload).decode()
        else:
            told["begins"] = payload.decode(errors="replace")
    return orjson.dumps(told)


def opened(text: bytes) -> tuple[str, bytes] | None:
    """Topic and payload. What was not sealed is a payload without a topic; None: not all of it was kept."""
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        told = None
    if isinstance(told, dict) and len(told) == 2 and isinstance(topic := told.get("topic"), str):
        if isinstance(payload := told.get("payload"), str):
            return topic, payload.encode()
        if isinstance(packed := told.get("base64"), str):
            return topic, base64.b64decode(packed)
        if "begins" in told:
            return None
    return "", text
