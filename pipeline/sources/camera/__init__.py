"""`camera`: what moves before a camera, how bright and sharp it is, and whether it sees anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Meta

from pipeline.component import Decoded, Inbox, Payload, Settings, Source, SourceContext
from pipeline.frame import Field, Schema, column
from pipeline.pictures import Picture
from pipeline.quantity import Duration, Secret, duration
from pipeline.reconnect import Connection
from pipeline.times import nanoseconds

if TYPE_CHECKING:
    from pipeline.sources.camera.capture import Shot
    from pipeline.sources.camera.looking import Looking, Seen

FIELDS = {
    "motion": Field("float"),  # share of the picture that moves
    "x": Field("float", True),  # box around all that moves, as shares of the picture; missing where nothing does
    "y": Field("float", True),
    "width": Field("float", True),
    "height": Field("float", True),
    "brightness": Field("float"),  # 0 to 255
    "sharpness": Field("float"),
    "blocked": Field("bool"),
}
SAMPLE_BYTES = 300  # what a sample counts for in the inbox
LEAST_NS = 20_000_000


class PictureSettings(Settings, frozen=True):
    keep: Annotated[Duration, Meta(description="How long pictures stay in memory.")] = duration("10 s")
    width: Annotated[int, Meta(ge=16, le=4096, description="Pixels; a wider picture is made smaller.")] = 640
    quality: Annotated[int, Meta(ge=1, le=100, description="Of the JPEG.")] = 80


class CameraSettings(Settings, frozen=True, kw_only=True):
    url: Annotated[
        Secret,
        Meta(description='"/dev/video0", "rtsp://…", "http://…" (MJPEG), or the path of a film; may hold a password.'),
    ]
    name: Annotated[str, Meta(description="What the camera is called, the key. Absent: the source's name.")] = ""
    every: Annotated[Duration, Meta(description="From one reading to the next.")] = duration("500 ms")
    area: Annotated[
        tuple[float, float, float, float] | None,
        Meta(description="What is looked at: x, y, width, height as shares of the picture. Absent: all of it."),
    ] = None
    start: Annotated[
        str | None, Meta(description="Of a film: when it began, RFC 3339. Absent: it ended when it is first looked at.")
    ] = None
    pictures: Annotated[PictureSettings, Meta(description="What a `snapshot` sink can keep.")] = PictureSettings()


class Camera(Source):
    """Look at pictures, and give numbers: what moves, brightness, sharpness, a covered lens. Pictures do not leave the source.

        [sources.yard]
        type = "camera"
        url = "rtsp://user:${CAMERA_PASSWORD}@10.0.0.8/stream2"
        every = "500 ms"

        [operators.intruder]
        type = "alert"
        input = "yard"
        when = "motion > 0.02"
        for = "1 s"

    The key is `camera`. Fields: `motion` (the share of the picture that differs from a background that is learned as pictures
    come, 0 to 1), `x`, `y`, `width`, `height` (the box around what moves, as shares of what is looked at; missing where nothing
    does), `brightness` (0 to 255), `sharpness` (the variance of the Laplacian: compare it with the same camera's), `blocked`
    (there is nothing to see: the lens is covered, or there is no light). What stops moving is background after a minute or two.
    A film is finite: it is read as fast as it can be, each picture with its time in the film, and its end closes the windows;
    a restart goes on behind the last picture that is durable. A camera is asked for its newest picture; one that is gone is
    tried again, and /health says so.
    `pictures`: those of the last moments are kept in memory, where a sink `snapshot` finds the one that belongs to an alert.
    Needs OpenCV: pip install "headwater[camera]".
    The background is no state: it is learned anew after a restart.
    Delivery: a picture that was not committed when the process was killed is not looked at again, but for those of a film.
    At the limit: while the inbox is full no picture is looked at. All pictures in memory together: 64 MB.
    """

    def __init__(self, settings: CameraSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema("camera", dict(FIELDS))
        self.settings = settings
        self.name = settings.name or context.name
        self.url = settings.url.reveal()
        self.live = "://" in self.url or self.url.startswith("/dev/") or self.url.isdecimal()
        self.start = self._start()
        self._check()

    def _check(self) -> None:
        context, area = self.context, self.settings.area
        if not self.url:
            context.problem("url", 'name a device, a stream or a film, as "/dev/video0"')
        if self.settings.every < LEAST_NS:
            context.problem("every", 'must be at least "20 ms"')
        inside = area is None or (
            min(area[:2]) >= 0 and min(area[2:]) > 0 and area[0] + area[2] <= 1 and area[1] + area[3] <= 1
        )
        if not inside:
            context.problem("area", "x, y, width and height are shares of the picture, from 0 to 1, and within it")
        if self.live and self.settings.start is not None:
            context.problem("start", "belongs to a film; a camera is dated by the clock")
        try:
            import cv2  # noqa: F401
        except ImportError:
            context.problem("", 'needs OpenCV: pip install "headwater[camera]"')

    def _start(self) -> int | None:
        if self.settings.start is None:
            return None
        times, right = nanoseconds([self.settings.start], "iso")
        if right is not None and not right[0]:
            self.context.problem("start", "must be a time such as 2026-01-31T12:00:00Z")
            return None
        return int(times[0])

    # --- looking ---

    async def run(self, inbox: Inbox, position: Any) -> None:
        if self.live:
            connection = Connection(self, _shown(self.url))
            await connection.keep(partial(self._watch, inbox, connection))
        else:
            await self._film(inbox, position)

    async def _watch(self, inbox: Inbox, connection: Connection) -> None:
        from pipeline.sources.camera.capture import Camera as Opened
        from pipeline.sources.camera.looking import Looking

        camera = await asyncio.to_thread(Opened, self.url)
        try:
            looking, loop, frame = Looking(self.settings.area), asyncio.get_running_loop(), 0
            due = loop.time()
            while True:
                shot = await asyncio.to_thread(camera.next, frame)
                frame = shot.frame
                assert self.context.clock is not None
                await self._seen(inbox, looking, shot, self.context.clock.wall(), None)
                connection.up()
                due = max(due + self.settings.every.seconds, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            await asyncio.to_thread(camera.close)

    async def _film(self, inbox: Inbox, position: Any) -> None:
        from pipeline.sources.camera.capture import Film
        from pipeline.sources.camera.looking import Looking

        path = os.path.join(self.context.folder, self.url)
        if not os.path.exists(path):
            raise FileNotFoundError(f"source {self.context.name}: there is no film {path}")
        assert self.context.clock is not None
        film = await asyncio.to_thread(Film, path, int(self.settings.every), position["frame"] if position else -1)
        just_taken = self.context.clock.wall() - film.length
        begun = position or {"start": just_taken if self.start is None else self.start}
        try:
            looking = Looking(self.settings.area)
            while shot := await asyncio.to_thread(film.next):
                position = {**begun, "frame": shot.frame}
                await self._seen(inbox, looking, shot, begun["start"] + shot.at, position)
        finally:
            film.close()
        inbox.end()

    async def _seen(self, inbox: Inbox, looking: Looking, shot: Shot, time: int, position: Any) -> None:
        """Numbers into the inbox; the picture stays."""
        from pipeline.sources.camera.looking import jpeg

        kept = self.settings.pictures
        seen, packed = await asyncio.to_thread(
            lambda: (looking.see(shot.image), jpeg(shot.image, kept.width, kept.quality) if kept.keep else b"")
        )
        if packed:
            self.context.pictures.put(self.name, Picture(time, packed), int(kept.keep))
        await inbox.put(Payload((time, _row(seen)), SAMPLE_BYTES, position))

    # --- readings ---

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        row: dict[str, Any] = {"motion": 0.0, "brightness": 128.0, "sharpness": 100.0, "blocked": False}
        time = reading.get("time")
        return Payload((time, row | {n: v for n, v in reading.items() if n != "time"}), SAMPLE_BYTES)

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        import numpy as np

        rows = [p.data[1] for p in payloads]
        times = [p.arrival if p.data[0] is None else p.data[0] for p in payloads]
        columns = {name: column(field.kind, [row.get(name) for row in rows]) for name, field in FIELDS.items()}
        keys = [row.get("camera", self.name) for row in rows]  # a test may speak of other cameras
        return Decoded(keys, np.array(times, np.int64), columns, [1] * len(rows), [])


def _row(seen: Seen) -> dict[str, Any]:
    box = dict(zip(("x", "y", "width", "height"), seen.box, strict=True)) if seen.box else {}
    return {
        **box,
        "motion": seen.motion,
        "brightness": seen.brightness,
        "sharpness": seen.sharpness,
        "blocked": seen.blocked,
    }


def _shown(url: str) -> str:
    """Without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")) if parts.netloc else url
