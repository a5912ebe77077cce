"""What of an MQTT topic names something, what a filter of topics may be, and a message with its topic as text."""

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


def wrong_filter(topic: str) -> str:
    """What is wrong with a topic filter (`sensors/+/reading`, `$share/group/sensors/#`); "" if it is right."""
    if len(topic.encode()) > 0xFFFF or "\0" in topic:
        return "is longer than 65,535 bytes, or has a NUL in it"
    parts = topic.split("/")
    if parts[0] == "$share":
        if len(parts) < 3 or not parts[1] or set(parts[1]) & set("+#"):
            return 'is no shared subscription; write it as "$share/GROUP/sensors/#"'
        parts = parts[2:]
    if parts == [""]:
        return "is empty"
    if "*" in topic and not set(topic) & set("+#"):
        return 'has a "*" in it, which is no wildcard: "+" stands for one level, a "#" at the end for all that follow'
    if any("+" in p and p != "+" for p in parts):
        return 'has a "+" within a level; it stands for a whole one'
    if any("#" in p for p in parts[:-1]) or ("#" in parts[-1] and parts[-1] != "#"):
        return 'has a "#" that is not the last level'
    return ""


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
