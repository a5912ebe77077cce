"""The test kit for what stands at the edges: sources, codecs and sinks, ours and other people's.

    readings = await gathered(Folder, {"path": "spool"}, 3)              # a source: what its first payloads say
    codec = make_codec(Tagged, fields={"t": "float"}); decoded(codec, …) # a codec: its readings, and those refused
    async with Outbox(made) as outbox: await outbox.put(…)               # a sink: with the real outbox and its courier

Settings are given as they stand in a pipeline file. Wrong ones are an AssertionError; to see what is said of them, ask
`problems_of`. Streams and their rows are written as for operators (`pipeline.testing`).
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_type_hints

from pipeline.clock import RealClock
from pipeline.component import (
    Batch,
    Codec,
    Context,
    Decoded,
    Inbox,
    Payload,
    ReadingSettings,
    Sink,
    SinkContext,
    Source,
    SourceContext,
)
from pipeline.delivery import Delivery
from pipeline.frame import Frame, KeyTable, Schema
from pipeline.journal import dead, outbox
from pipeline.journal.commit import Store
from pipeline.settings import read
from pipeline.testing.readings import READINGS, Mark, Reading, frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

Problems = list[tuple[str, str]]  # setting, what is wrong with it
Made = TypeVar("Made")
Connector = TypeVar("Connector", bound=Source | Sink)

PATIENCE_S = 30.0  # what should happen at once has so long, on whatever machine; then it is said to have failed


def problems_of(
    cls: type[Source | Sink], settings: Mapping[str, Any], inputs: Mapping[str, Schema] | None = None
) -> Problems:
    """What `headwater check` would find wrong with the settings of a source or a sink."""
    found = read(_kind_of(cls), dict(settings)).found
    if found:
        return [(".".join(map(str, where)), text) for where, text in found]
    context = _context(cls, inputs)
    problems: Problems = context.problems
    try:
        cls(read(_kind_of(cls), dict(settings)).settings, context)
    except ValueError as error:
        return [*problems, ("", str(error))]
    return problems


def _made(
    cls: type[Connector],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Schema] | None = None,
    *,
    name: str,
    folder: Path,
) -> Connector:
    """One without a problem."""
    settled = read(_kind_of(cls), dict(settings))
    assert not settled.found, f"the settings are wrong: {settled.found}"
    context = _context(cls, inputs, name, folder)
    made = cls(settled.settings, context)
    assert not context.problems, f"the settings are wrong: {context.problems}"
    return made


def _kind_of(cls: type[Any]) -> Any:
    return get_type_hints(cls.__init__)["settings"]


def _context(cls: type[Any], inputs: Mapping[str, Schema] | None, name: str = "node", folder: Path = Path()) -> Any:
    if issubclass(cls, Source):
        return SourceContext(name, KeyTable(), folder=folder, clock=RealClock())
    return SinkContext(name, dict(inputs or {"readings": READINGS}), KeyTable(), folder=folder, clock=RealClock())


# --- sources ----------------------------------------------------------------------------------------------------------


class Gathering(Inbox):
    """An inbox with room for so many payloads, which then wakes who waits for them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.payloads: list[Payload] = []
        self.ended = False
        self.full = asyncio.Event()

    def offer(self, payload: Payload) -> bool:
        if len(self.payloads) >= self.room:
            return False
        self.payloads.append(payload)
        if len(self.payloads) == self.room:
            self.full.set()
        return True

    async def put(self, payload: Payload) -> None:
        if not self.offer(payload):
            await asyncio.Event().wait()  # it is full, and stays so

    async def taken(self) -> None:
        return

    def end(self) -> None:
        self.ended = True
        self.full.set()


AnySource = TypeVar("AnySource", bound=Source)


def make_source(
    cls: type[AnySource], settings: Mapping[str, Any], *, name: str = "node", folder: Path = Path()
) -> AnySource:
    """A source without a problem."""
    return _made(cls, settings, name=name, folder=folder)


async def gathered(source: Source, payloads: int, position: Any = None) -> list[dict[str, Any]]:
    """The readings of the first payloads that a source puts into its inbox, or of all up to its end; then it is stopped.

    They are decoded together and one by one: that must come to the same. AssertionError if it does not, or if the source
    ends with an error.
    """
    inbox = Gathering(payloads)
    running = asyncio.create_task(source.run(inbox, position))
    waiting = asyncio.create_task(inbox.full.wait())
    done, _ = await asyncio.wait({running, waiting}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    for task in (running, waiting):
        task.cancel()
    error = (await asyncio.gather(running, return_exceptions=True))[0]
    assert done, f"{len(inbox.payloads)} of {payloads} payloads came within {PATIENCE_S:g} s"
    if isinstance(error, Exception):
        raise AssertionError(f"the source ended: {error!r}") from error
    keys = source.context.keys
    key = source.schema.key
    together = _rows(source.decode(inbox.payloads), key, keys)
    apart = [row for payload in inbox.payloads for row in _rows(source.decode([payload]), key, keys)]
    assert str(together) == str(apart), "decoded one by one the payloads say something else than together"
    return together


def _rows(decoded: Decoded, key: str | None, keys: KeyTable) -> list[dict[str, Any]]:
    """Readings as dicts: the key under its name, "time" in ns if they say it, the fields; a missing value is None."""
    columns: dict[str, list[Any]] = {}
    if key is not None:
        columns[key] = [keys.names[code] for code in keys.codes(decoded.keys).tolist()]
    if decoded.times is not None:
        columns["time"] = decoded.times.tolist()
    columns |= {name: column.tolist() for name, column in decoded.columns.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    assert set(lengths.values()) <= {sum(decoded.counts)}, f"counts say {sum(decoded.counts)} readings, not {lengths}"
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# --- codecs -----------------------------------------------------------------------------------------------------------


def make_codec(
    cls: type[Made],
    *,
    fields: Mapping[str, str],
    key: str | None = None,
    time: str | None = None,
    time_unit: str = "auto",
    **options: Any,
) -> Made:
    """A codec without a problem, as a source with these settings makes it; `options` stand beside `type` in `format`."""
    context = Context("node", KeyTable(), clock=RealClock())
    settings = ReadingSettings(key=key, time=time, time_unit=time_unit, fields=dict(fields))
    construct: Callable[..., Made] = cls
    made = construct(settings, options, context)
    assert not context.problems, f"the settings are wrong: {context.problems}"
    return made


def decoded(
    codec: Codec, payloads: Sequence[bytes], key: str | None = None
) -> tuple[list[dict[str, Any]], list[tuple[int, int, str]]]:
    """The readings of payloads, and payload, item and reason of each that was refused.

    Decoded one by one they must come to the same: a bad one costs itself, whatever comes with it.
    """
    keys = KeyTable()
    whole = codec.decode(payloads)
    assert len(whole.counts) == len(payloads), "counts has one number for each payload"
    together = _rows(whole, key, keys), sorted((r.payload, r.item, r.reason) for r in whole.refused)
    rows: list[dict[str, Any]] = []
    refused = []
    for i, payload in enumerate(payloads):
        alone = codec.decode([payload])
        rows += _rows(alone, key, keys)
        refused += [(i, r.item, r.reason) for r in alone.refused]
    assert str(together) == str((rows, sorted(refused))), (
        f"decoded one by one the payloads say {(rows, sorted(refused))}, together {together}"
    )
    return together


# --- sinks ------------------------------------------------------------------------------------------------------------


AnySink = TypeVar("AnySink", bound=Sink)


def make_sink(
    cls: type[AnySink],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Schema] | None = None,
    *,
    name: str = "node",
    folder: Path = Path(),
) -> AnySink:
    """A sink without a problem; its inputs are one stream `readings` unless said otherwise."""
    return _made(cls, settings, inputs, name=name, folder=folder)


def batch(sink: Sink, rows: str | Sequence[Reading | Mark], stream: str = "readings", key: str = "k") -> Batch:
    """Rows as a sink is handed them to deliver: the same ones come under the same key on every try."""
    return Batch(key, [(stream, _frame(sink, rows, stream))], 1)


def _frame(sink: Sink, rows: str | Sequence[Reading | Mark], stream: str) -> Frame:
    (frame,) = frames(rows, sink.context.inputs[stream], sink.context.keys)
    return frame


class Outbox:
    """A sink that delivers, with a real outbox in a folder that is removed at the end, and its courier.

    A second one over the same folder is what a restart finds.
    """

    def __init__(self, sink: Sink, folder: Path | None = None) -> None:
        self.sink = sink
        self.name = sink.context.name
        self._own = tempfile.TemporaryDirectory() if folder is None else None
        self.store = Store(folder or Path(self._own.name if self._own else ""), "process")
        self.delivery = Delivery(
            {self.name: sink},
            self.store,
            RealClock(),
            sink.context.keys,
            sink.context.inputs,
            random_=random.Random(1),
        )

    async def __aenter__(self) -> Self:
        await self.delivery.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.delivery.close(0.0)
        self.store.close()
        if self._own:
            self._own.cleanup()

    async def put(self, stream: str, rows: Frame | str | Sequence[Reading | Mark]) -> None:
        """Rows of an input that a step has made: they go into the outbox, and from there to `deliver`."""
        frame = rows if isinstance(rows, Frame) else _frame(self.sink, rows, stream)
        keep = self.sink.context.inputs[stream].role == "alerts"
        await self.store.write(lambda db: outbox.put(db, self.name, stream, frame, keep=keep, clock=1))
        self.delivery.wake()

    async def status(self) -> dict[str, Any]:
        """As `/api/delivery` tells it: `waiting`, `sent`, `failed`, `attempts`, `last_error` …"""
        (status,) = await self.delivery.status()
        return status

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """Wait for the status to say so: `await outbox.until(sent=3, waiting=0)`."""
        status: dict[str, Any] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    status = await self.status()
                    if all(status[name] == value for name, value in wanted.items()):
                        return status
                    await asyncio.sleep(0.01)
        raise AssertionError(f"it never came to {wanted}: {status}")

    async def letters(self) -> list[tuple[str, dict[str, Any]]]:
        """The dead letters: reason and row of each that was refused for good."""
        found = await self.store.read(lambda db: dead.letters(db, 1000))
        return [(letter.reason, json.loads(letter.row)) for letter in reversed(found)]
