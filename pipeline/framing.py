"""From a stream of bytes (a socket, a serial line, a command's output) to messages, and from these to payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from msgspec import Meta

from pipeline.component import Codec, Decoded, Payload, ReadingSettings, Refused, SourceContext
from pipeline.frame import NO_PROGRESS, Ints, Schema, empty
from pipeline.quantity import Size
from pipeline.reading import CodecSource

if TYPE_CHECKING:
    from typing import Protocol

    class Framing(Protocol):
        broken: str  # where messages begin is not known any more, and why; "": it is

        def feed(self, data: bytes) -> list[bytes | TooLong]: ...
        def end(self) -> list[bytes | TooLong]: ...


RAW = 200  # bytes of a message that is too long that are kept

Prefix = Literal["lines", "u8", "u16", "u32", "u16_le", "u32_le"]


class TooLong(NamedTuple):
    """A message that is not held in memory, but told."""

    head: bytes


class Lines:
    """Messages end with a line feed, with or without a carriage return before it; blank ones are none."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.broken = ""
        self._held = bytearray()  # the line that has not come to its end
        self._skipping = False  # it is too long, which has been told

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        cut = data.rfind(b"\n") + 1
        messages: list[bytes | TooLong] = []
        if cut:
            messages += map(self._line, (self._held + data[:cut]).split(b"\n")[self._skipping : -1])
            self._held.clear()
            self._skipping = False
        if not self._skipping:
            self._held += data[cut:]
        if len(self._held) > self.most + 1:  # the carriage return is not counted
            messages.append(TooLong(bytes(self._held[:RAW])))
            self._held.clear()
            self._skipping = True
        return [message for message in messages if message]

    def end(self) -> list[bytes | TooLong]:
        """What has no line end, and will not get one."""
        line = self._line(self._held)
        self._held = bytearray()
        return [line] if line else []

    def _line(self, line: bytearray) -> bytes | TooLong:
        text = bytes(line).removesuffix(b"\r")
        if len(text) > self.most:
            return TooLong(text[:RAW])
        return text if text.strip() else b""


class Lengths:
    """Messages stand behind their length; one of length 0 is none (a sign of life)."""

    def __init__(self, most: int, size: int, order: Literal["big", "little"]) -> None:
        self.most = most
        self.size = size
        self.order = order
        self.broken = ""
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        held, at = self._held, 0
        held += data
        messages: list[bytes | TooLong] = []
        while len(held) - at >= self.size:
            begin = at + self.size
            length = int.from_bytes(held[at:begin], self.order)
            if length > self.most:
                self.broken = f"a message of {length:,} bytes was announced; max_message is {self.most:,}"
                messages.append(TooLong(bytes(held[at : at + RAW])))
                at = len(held)
            elif len(held) - begin < length:
                break
            else:
                if length:
                    messages.append(bytes(held[begin : begin + length]))
                at = begin + length
        del held[:at]
        return messages

    def end(self) -> list[bytes | TooLong]:
        """A message that was cut off is none."""
        self._held.clear()
        return []


def framing(kind: Prefix, most: int) -> Framing:
    if kind == "lines":
        return Lines(most)
    bits, _, little = kind.removeprefix("u").partition("_")
    return Lengths(most, int(bits) // 8, "little" if little else "big")


# --- sources of such streams ----------------------------------------------------------------------------------------


class StreamSettings(ReadingSettings, frozen=True, kw_only=True):
    framing: Annotated[
        Prefix,
        Meta(description="What a message is: a line, or what stands behind its length (bits; _le: lowest byte first)."),
    ] = "lines"
    max_message: Annotated[Size, Meta(description="A longer message is refused.")] = Size(64_000)


class StreamSource(CodecSource):
    """A source of messages that come as a stream of bytes."""

    def __init__(self, settings: StreamSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.framing: Prefix = settings.framing
        self.most = int(settings.max_message)
        if self.most < 1:
            context.problem("max_message", "must be at least 1 B")
        self._too_long = _Unreadable(
            self.schema, settings.time is not None, f"longer than max_message ({self.most:,} bytes)"
        )

    def stream(self) -> Stream:
        """For a connection that begins."""
        return Stream(framing(self.framing, self.most), self.codec, self._too_long)

    def whole(self, message: bytes) -> Payload:
        """For a message that comes by itself."""
        if len(message) <= self.most:
            return Payload(message, len(message))
        return Payload(message[:RAW], RAW, codec=self._too_long)


class Stream:
    """One connection: its bytes as payloads. A codec with a header takes it from the first message."""

    def __init__(self, framing: Framing, codec: Codec | None, too_long: Codec) -> None:
        self.framing = framing
        self._too_long = too_long
        self._header: bytes | None = None if getattr(codec, "has_header", False) else b""

    @property
    def broken(self) -> str:
        """Why nothing that comes can be understood any more."""
        return self.framing.broken

    def feed(self, data: bytes) -> list[Payload]:
        return [p for message in self.framing.feed(data) if (p := self._payload(message))]

    def end(self) -> list[Payload]:
        """The other end is done, in order."""
        return [p for message in self.framing.end() if (p := self._payload(message))]

    def _payload(self, message: bytes | TooLong) -> Payload | None:
        if isinstance(message, TooLong):
            return Payload(message.head, len(message.head), codec=self._too_long)
        if self._header is None:
            self._header = message + b"\n"
            return None
        return Payload(self._header + message if self._header else message, len(message))


class _Unreadable:
    """The codec of what cannot be a reading."""

    media_types: ClassVar[tuple[str, ...]] = ("application/octet-stream",)

    def __init__(self, schema: Schema, timed: bool, reason: str) -> None:
        self.nothing = empty(schema, NO_PROGRESS)
        self.times: Ints | None = np.empty(0, np.int64) if timed else None
        self.reason = reason

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused = [Refused(i, 0, self.reason, data.decode(errors="replace")) for i, data in enumerate(payloads)]
        return Decoded([], self.times, dict(self.nothing.columns), [0] * len(payloads), refused)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        raise NotImplementedError

    def header(self, names: Sequence[str]) -> bytes:
        raise NotImplementedError
