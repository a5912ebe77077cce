"""Where each task and each thread of this process stands. Places in the code only: no values, and so no secrets."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

DEEP = 12  # places of a stack that are shown, the innermost ones
MANY = 100  # stacks that are shown; five hundred idle connections stand at one place, and are one of them
LONG = 100  # characters of a name
PARTS = 3  # of a path: enough to find the file, and nothing of whose folder it is in


def tasks() -> list[dict[str, Any]]:
    """Of the running loop, by name and stack: `name`, how many there are (`count`), and `stack`, the innermost place last."""
    return _grouped((_name(task), _of_task(task)) for task in asyncio.all_tasks())


def threads() -> list[dict[str, Any]]:
    """But the one that asks: it is here."""
    frames = sys._current_frames()
    others = (t for t in threading.enumerate() if t is not threading.current_thread() and t.ident in frames)
    return _grouped((thread.name, _up(frames[thread.ident or 0])) for thread in others)


def _grouped(found: Iterable[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    counts: dict[tuple[str, tuple[str, ...]], int] = {}
    for name, stack in found:
        shown = (name[:LONG], tuple(stack[-DEEP:]))
        if shown in counts or len(counts) < MANY:
            counts[shown] = counts.get(shown, 0) + 1
    return [{"name": name, "count": count, "stack": list(stack)} for (name, stack), count in sorted(counts.items())]


def _name(task: asyncio.Task[Any]) -> str:
    """The one it was given; of those that nobody named, what they run."""
    name = task.get_name()
    numbered = name.startswith("Task-") and name[5:].isdecimal()
    return getattr(task.get_coro(), "__qualname__", name) if numbered else name


def _of_task(task: asyncio.Task[Any]) -> list[str]:
    """A coroutine that waits knows what it waits for; `Task.get_stack` shows only the outermost of these."""
    places: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(places) < 100:
        frame = _first(waiting, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        if _first(waiting, "cr_running", "gi_running", "ag_running"):
            return [*places, _place(frame.f_code, frame.f_lineno)]  # the one that asks
        places.append(_place(frame.f_code, frame.f_lineno))
        waiting = _first(waiting, "cr_await", "gi_yieldfrom", "ag_await")
    return places


def _first(of: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(of, name, None)) is not None), None)


def _up(frame: FrameType | None) -> list[str]:
    places: list[str] = []
    while frame is not None and len(places) < DEEP:
        places.append(_place(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return places[::-1]


def _place(code: CodeType, line: int) -> str:
    return f"{'/'.join(PurePath(code.co_filename).parts[-PARTS:])}:{line} {code.co_qualname}"
