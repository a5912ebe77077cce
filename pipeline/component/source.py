"""What a source is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from pipeline.component.codec import Codec, Decoded, Refused
from pipeline.component.context import Context
from pipeline.component.services import Server, Services
from pipeline.frame import KeyTable, Schema


class Receipt(NamedTuple):
    """What became of a payload; given when its readings are durable."""

    taken: int
    refused: list[Refused]
    failed: str | None = None  # nothing was kept: the reason
    repeated: bool = False  # it had come before under the same `request`; nothing was counted again


class Payload(Struct):  # one for each request: a dataclass takes five times as long to make
    """What arrived in one piece: a request body, a chunk of a file, one sample of this host."""

    data: Any
    size: int  # bytes it counts for in the inbox
    position: Any = None  # where the source would go on after it (file offset); saved with the step
    request: str | None = None  # Idempotency-Key: counted once, also over restarts
    codec: Codec | None = None  # None: the source's own
    arrival: int = 0  # wall clock, ns; set by the inbox
    done: Callable[[Receipt], None] | None = None  # called in the loop once durable (or failed)


class Inbox(Protocol):
    """Where a source puts what arrives. Bounded: this is where backpressure starts."""

    def offer(self, payload: Payload) -> bool:
        """Take it if there is room; False: tell the sender to come back later."""
        ...

    async def put(self, payload: Payload) -> None:
        """Take it, waiting for room."""
        ...

    async def taken(self) -> None:
        """Wait until all that was put here is in a step."""
        ...

    def end(self) -> None:
        """Nothing more will come (a file at its end)."""
        ...


class SourceContext(Context):
    """What a source is given; `server` and `services` are there once the engine runs."""

    def __init__(self, name: str, keys: KeyTable, **more: Any) -> None:
        super().__init__(name, keys, **more)
        self.server: Server | None = None  # where routes are mounted; None: there is no [server] in this run
        self.services: Services | None = None


class Source:
    """Where readings come from. `run` puts payloads into the inbox; `decode` makes readings of many at once."""

    schema: Schema
    live: bool = True  # False: finite; its end flushes the windows, and it is never idle before
    replayable: bool = False  # True: `reread` can give the payloads between two positions again
    trouble: str = ""  # why nothing comes for now (a peer that is away), for /health; "" when all is well

    def __init__(self, settings: Any, context: SourceContext) -> None:
        self.context: SourceContext = context

    def mount(self, server: Server) -> None:
        """Add HTTP routes; called before `run`. Only if `needs_server`."""

    needs_server: bool = False
    paths: tuple[str, ...] = ()  # that it mounts: no two sources may have the same

    async def run(self, inbox: Inbox, position: Any) -> None:
        """Produce until cancelled, or until `inbox.end()`. `position` is that of the last durable payload, or None."""
        raise NotImplementedError

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        raise NotImplementedError

    def readings(self, payload: Payload) -> list[bytes] | None:
        """Each reading of a payload, as `again` takes it, in the order in which `decode` counts them. None: they cannot be
        told apart, or not be given again."""
        return None

    def again(self, reading: bytes, media_type: str) -> Payload | None:
        """A reading that was refused, as a payload to be decoded once more. None: this source cannot."""
        return None

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        """The fields of a reading, as a `[[test]]` block names them, as a payload to be decoded. None: this source takes none."""
        return None

    def reread(self, start: Any, end: Any) -> list[Payload]:
        """The payloads between two positions, cut as before. OSError or ValueError if they are gone."""
        raise NotImplementedError

    def progress(self) -> tuple[int, int] | None:
        """For a finite source: (done, total) in bytes, for a progress bar."""
        return None
