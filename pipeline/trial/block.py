"""`[[test]]` blocks: what they may say, and what of it is run. `reader.py` makes the one of the other.

[[test]]
name = "a fan that stops"
input.machine = [{ at = "0 s", id = "fan", speed = 900 }, { at = "5 s", id = "fan", speed = 0 }]
steps = [{ at = "6 s", do = "crash" }]
expect.stopped = [{ id = "fan", state = "firing", time = "5 s" }]
until = "1 min"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from pipeline import times
from pipeline.component import Settings
from pipeline.quantity import Duration, duration

# --- steps ----------------------------------------------------------------------------------------------------------


class Step(Settings, frozen=True, kw_only=True, tag_field="do"):
    at: Annotated[Duration, Meta(ge=0, description="When, after the start.")]


class Restart(Step, frozen=True, kw_only=True, tag="restart"):
    """Stop as by SIGTERM, and start again."""

    down: Annotated[Duration, Meta(description="How long it is down.")] = msgspec.field(default=Duration(0), name="for")


class Crash(Step, frozen=True, kw_only=True, tag="crash"):
    """Kill: what is in flight is lost, and given again by its senders."""

    down: Annotated[Duration, Meta(description="How long it is down.")] = msgspec.field(default=Duration(0), name="for")


class Pause(Step, frozen=True, kw_only=True, tag="pause"):
    """The process is stopped, as by SIGSTOP: time passes, and it hears nothing."""

    down: Annotated[Duration, Meta(description="How long it is stopped.")] = msgspec.field(name="for")


class Offline(Step, frozen=True, kw_only=True, tag="offline"):
    """The other end of a sink cannot be reached."""

    sink: Annotated[str | None, Meta(description="Which. Absent: all that deliver.")] = None


class Online(Step, frozen=True, kw_only=True, tag="online"):
    sink: Annotated[str | None, Meta(description="Which. Absent: all that deliver.")] = None


class ClockJump(Step, frozen=True, kw_only=True, tag="clock_jump"):
    """The wall clock is set forward or back; no time passes."""

    by: Annotated[str, Meta(description='Such as "1 h", or "-1 h".')]

    def __post_init__(self) -> None:
        duration(self.by.removeprefix("-"))

    @property
    def ns(self) -> int:
        return -duration(self.by[1:]) if self.by.startswith("-") else duration(self.by)


class Forget(Step, frozen=True, kw_only=True, tag="forget"):
    """A key is gone for good, as by `headwater forget`."""

    key: Annotated[str, Meta(description="Which.")]
    stream: Annotated[
        str | None, Meta(description="Only in this stream and in what comes of it. Absent: everywhere.")
    ] = None


AnyStep = Restart | Crash | Pause | Offline | Online | ClockJump | Forget


class TestBlock(Settings, frozen=True, kw_only=True):
    """A [[test]] as it stands in the file."""

    name: Annotated[str, Meta(min_length=1, description="What holds, in words.")]
    input: Annotated[dict[str, Any], Meta(description="What comes to each source: rows, or a file.")] = {}
    steps: Annotated[list[AnyStep], Meta(description="What happens to the device meanwhile.")] = []
    expect: Annotated[dict[str, Any], Meta(description="The rows that must come out of each node, in order.")] = {}
    until: Annotated[Duration | None, Meta(description="When it ends. Absent: with the last row or step.")] = None
    start: Annotated[Any, Meta(description="What the clock says at the start.")] = None


# --- what is run -----------------------------------------------------------------------------------------------------


class Given(NamedTuple):
    """Something that arrives at a source."""

    at: int  # ns after the start
    source: str
    reading: Mapping[str, Any] | bytes  # fields, or a payload in the source's own format


@dataclass
class Block:
    """A test that can be run."""

    name: str
    line: int
    start: int  # ns since 1970
    end: int  # ns after the start
    open: bool  # no `until` was given
    rows: list[Given] = field(default_factory=list)  # as written
    steps: list[Any] = field(default_factory=list)
    expect: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # node -> rows; None: must be missing


def moment(value: Any, start: int) -> int | None:
    """A time as tests write it: RFC 3339, "10 s" after the start, or a number since 1970. None: it is not one."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        if (at := times.instant(value)) is not None:
            return at
        try:
            return start + (-duration(value[1:]) if value.startswith("-") else duration(value))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    ns, good = times.nanoseconds([value], "auto")
    return int(ns[0]) if good is None else None
