"""`file`: readings of a file, or of all files of a pattern."""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, BinaryIO

import numpy as np
from msgspec import Meta

from pipeline.component import Decoded, Inbox, Payload, ReadingSettings, Refused, SourceContext
from pipeline.reading import CodecSource
from pipeline.trail import Place, Trail
from pipeline.typed import Typed

CHUNK = 1_000_000  # bytes read at a time: a Frame of some ten thousand readings
MAX_LINE = 1_000_000  # a longer line is not a reading; it is refused, not held in memory
POLL_S = 0.25  # how often a followed file is looked at


class FileSettings(ReadingSettings, frozen=True, kw_only=True):
    path: Annotated[str, Meta(description="The file, or a pattern of several; relative to the pipeline file.")]
    follow: Annotated[bool, Meta(description="Wait for more at its end.")] = False
    speed: Annotated[float, Meta(description="Pace of a replay: 1.0 as the event times say. 0: as fast as it can.")] = (
        0.0
    )


class File(CodecSource):
    """The lines of a file (or the items of a binary one, by `format`), from the first to the last.

        [sources.recorded]
        type = "file"
        path = "recordings/*.ndjson"
        key = "id"
        time = "ts"
        fields = { value = "float" }

    A pattern stands for all files that it matches, in the order of their names. At the end of the last one every window
    closes, and the pipeline ends if it has no other source. A restart goes on behind the last line that is durable.
    `follow = true` waits for more; the last line counts once its end is there. A file that was rotated, also while the
    pipeline was down, is read to its end first, if it still lies beside the new one and is not packed; so is the copy of
    one that was truncated.
    `speed = 1.0` replays at the pace of the event times, 2.0 twice as fast; absent, as fast as it can.
    A file that is read to its end must not be changed before then: after a crash a part of it is read again.
    """

    def __init__(self, settings: FileSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.live = settings.follow
        self.replayable = not settings.follow
        if self.replayable and isinstance(self.codec, Typed):
            self.codec.clock = None  # after a crash a part is read again, and must be dated as before
        self.pattern = str(context.folder / settings.path)
        self.done = self.total = 0
        # A binary format has no lines, and says itself how far it is whole.
        self._by_itself: Callable[[bytes], int] | None = getattr(self.codec, "whole", None)
        if self._by_itself is not None and settings.speed:
            context.problem("speed", "needs a format of lines")
        if getattr(self.codec, "alone", False):
            context.problem("format", "payloads of this format cannot be told apart in a file")
        if settings.speed < 0:
            context.problem("speed", "must not be negative")
        if settings.follow and glob.has_magic(settings.path):
            context.problem("path", "a pattern cannot be followed; name one file")

    # --- reading ---

    async def run(self, inbox: Inbox, position: Any) -> None:
        if self.settings.follow:
            await self._follow(inbox, position)
            return
        files = self._files()
        sizes = [os.path.getsize(f) for f in files]
        self.total = sum(sizes)
        at = position or {"file": files[0], "offset": 0}
        first = files.index(at["file"]) if at["file"] in files else 0
        pace = _Pace(self.settings.speed)
        for i in range(first, len(files)):
            await inbox.taken()  # one step never spans two files: `reread` is told where it began and where it ended
            offset = at["offset"] if i == first and files[i] == at["file"] else 0
            # Reading a regular file in the loop costs less than handing it to a thread: it is in the page cache, or
            # the disk has to be waited for anyway.
            chunks = self._payloads(files[i], offset, None)
            for payload in self._lines(chunks) if self.settings.speed else chunks:
                await pace.wait(self, payload)
                await inbox.put(payload)
                self.done = sum(sizes[:i]) + payload.position["offset"]
                await asyncio.sleep(0)
        inbox.end()

    def _lines(self, chunks: Iterator[Payload]) -> Iterator[Payload]:
        """A payload for each line: a paced replay keeps the distances between readings."""
        for chunk in chunks:
            header = len(chunk.data) - chunk.size
            lines = chunk.data[header:].splitlines(keepends=True)
            offset = chunk.position["offset"] - chunk.size
            for line in lines:
                offset += len(line)
                yield self._payload(chunk.position["file"], chunk.data[:header], line, offset)

    def _files(self) -> list[str]:
        files = sorted(glob.glob(self.pattern)) if glob.has_magic(self.pattern) else [self.pattern]
        if not files or not os.path.exists(files[0]):
            raise FileNotFoundError(f"source {self.context.name}: there is no file {self.pattern}")
        return files

    def _payloads(self, file: str, offset: int, end: int | None) -> Iterator[Payload]:
        """Chunks cut at line ends, from `offset` to `end` (None: to the end of the file, with or without a line end)."""
        with open(file, "rb", buffering=0) as handle:
            header = self._header(handle)
            offset = max(offset, len(header))
            while True:
                if end is not None and offset >= end:
                    return
                handle.seek(offset)
                data = self._lines_of(handle, CHUNK if end is None else min(CHUNK, end - offset))
                if not data:
                    return
                offset += len(data)
                yield self._payload(file, header, data, offset)

    def _lines_of(self, handle: Any, size: int) -> bytes:
        """Whole lines, about `size` bytes of them; of a line that is too long, a piece; at the end, what is left."""
        data: bytes = handle.read(size)
        cut = self._whole(data)
        lines = self._by_itself is None
        while lines and not cut and len(data) < MAX_LINE and (more := handle.read(CHUNK)):
            cut = len(data) + more.find(b"\n") + 1 if b"\n" in more else 0
            data += more
        if cut and len(data) == size:
            return data[:cut]
        return data if not cut or not handle.read(1) else data[:cut]

    def _whole(self, data: bytes) -> int:
        """How much of it are whole readings: lines, if the format does not say otherwise."""
        if self._by_itself is not None:
            return self._by_itself(data)
        return data.rfind(b"\n") + 1

    def _header(self, handle: Any) -> bytes:
        """The line atop a file whose format has one; it goes before every chunk."""
        if not getattr(self.codec, "has_header", False):
            return b""
        handle.seek(0)
        first: bytes = handle.read(MAX_LINE)
        return first[: first.find(b"\n") + 1] or first

    def _payload(self, file: str, header: bytes, data: bytes, offset: int) -> Payload:
        return Payload(header + data if header else data, len(data), {"file": file, "offset": offset})

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        decoded = super().decode(payloads)
        return decoded._replace(refused=[r for r in decoded.refused if not _only_blank(payloads, r)])

    def reread(self, start: Any, end: Any) -> list[Payload]:
        """The payloads between two positions; one step never spans two files."""
        same = start is not None and start["file"] == end["file"]
        return list(self._payloads(end["file"], start["offset"] if same else 0, end["offset"]))

    def progress(self) -> tuple[int, int] | None:
        return None if self.live else (self.done, self.total)

    async def _follow(self, inbox: Inbox, position: Any) -> None:
        trail = Trail(self.pattern)
        place = Place(**position) if position else None
        while True:
            # The file stays open while it is read: what is written to it after it was renamed is found all the same.
            if (opened := trail.open(place)) is None:
                await asyncio.sleep(POLL_S)  # it comes later, or is just being rotated
                continue
            handle, place = opened
            with handle:
                place = await self._tail(handle, place, trail, inbox)

    async def _tail(self, handle: BinaryIO, place: Place, trail: Trail, inbox: Inbox) -> Place:
        """Whole lines as they are written, until the file is done with; where to go on."""
        header, last_look = b"", False
        while place.is_in(handle):
            if not place.offset:
                header = self._header(handle)
                place = place.moved(handle, len(header) if header.endswith(b"\n") else 0)
            handle.seek(place.offset)
            data = handle.read(CHUNK)
            cut = self._whole(data) or (len(data) if len(data) >= CHUNK else 0)
            if not cut and last_look:
                cut = len(data)  # nobody will end this line
            if cut:
                header = header or self._header(handle)
                place = place.moved(handle, place.offset + cut)
                await inbox.put(Payload(header + data[:cut] if header else data[:cut], cut, place._asdict()))
                await asyncio.sleep(0)
            elif last_look:
                return trail.after(handle) or place
            elif trail.after(handle) is not None:
                last_look = True  # once more: a line may have come between the last look and the rotation
            else:
                await asyncio.sleep(POLL_S)
        return place


def _only_blank(payloads: Sequence[Payload], refused: Refused) -> bool:
    """Blank lines in a file are no mistake."""
    return refused.reason.startswith("empty") and not payloads[refused.payload].data.strip()


class _Pace:
    """Holds chunks back until their readings' time has come."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.began: tuple[float, int] | None = None

    async def wait(self, source: File, payload: Payload) -> None:
        if not self.speed:
            return
        times = source.decode([payload]).times
        if times is None or not len(times):
            return
        now = asyncio.get_running_loop().time()
        self.began = self.began or (now, int(times[0]))
        due = self.began[0] + (int(np.max(times)) - self.began[1]) / 1e9 / self.speed
        await asyncio.sleep(max(0.0, due - now))
