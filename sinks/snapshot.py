"""`snapshot`: the picture that belongs to an alert, kept as a file."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from pipeline.api import Operation, Parameter, described
from pipeline.component import Batch, Outcome, Server, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSettings, DeliveringSink
from pipeline.frame import instant_text, rows
from pipeline.quantity import Duration, Size, duration, size
from pipeline.web import HttpProblem, answer

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("headwater")

LISTED = 1_000  # snapshots in an answer


class SnapshotSettings(DeliveringSettings, frozen=True, kw_only=True):
    folder: Annotated[Path, Meta(description="Where the pictures go; relative to the pipeline file.")] = Path(
        "snapshots"
    )
    within: Annotated[Duration, Meta(description="How far in time a picture may be from its alert.")] = duration("2 s")
    retention: Annotated[Duration, Meta(description="How old they may get.")] = duration("30 d")
    max_size: Annotated[Size, Meta(description="What all of them may take; the oldest go first.")] = size("500 MB")
    batch: Annotated[BatchSettings, Meta(description="Alerts that are looked at in one go.")] = BatchSettings(
        rows=100, wait=duration("0 s")
    )


class SnapshotTold(msgspec.Struct):
    alert: str
    key: str
    time: str
    url: str
    bytes: int


class SnapshotsTold(msgspec.Struct):
    snapshots: list[SnapshotTold]


class Snapshot(DeliveringSink):
    """Keep the picture of each alert that fires.

        [sources.yard]
        type = "camera"
        url = "/dev/video0"

        [operators.intruder]
        type = "alert"
        input = "yard"
        when = "motion > 0.02"

        [sinks.evidence]
        type = "snapshot"
        inputs = ["intruder"]
        retention = "30 d"

        curl http://127.0.0.1:8080/api/snapshots

    For a row `firing` the source's picture nearest to its time, if one is within `within`: snapshots/ALERT/KEY/TIME.jpg, where
    TIME is that of the row in ms since 1970. The key is the camera's name. /api/snapshots lists them, the newest first
    (`alert`, `key`), 1,000 at most, each with the address of its picture.
    Delivery: at least once, and once again is the same file. Pictures are in memory alone until then: one whose alert was not
    yet looked at when the process was killed is gone, and its alert has none.
    At the limit: what is older than `retention` is removed, and the oldest while all are more than `max_size`.
    """

    needs_server = True

    def __init__(self, settings: SnapshotSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.folder = context.folder / settings.folder
        for stream, schema in context.inputs.items():
            if schema.role != "alerts":
                context.problem("inputs", f'"{stream}" is no stream of an alert: a picture belongs to what fires')

    # --- keeping ---

    async def deliver(self, batch: Batch) -> Outcome:
        await asyncio.to_thread(self._keep, batch)
        return Outcome(delivered=True)

    def _keep(self, batch: Batch) -> None:
        for stream, frame in batch.parts:
            schema = self.context.inputs.get(stream)
            if schema is None or schema.key is None:
                continue
            for row, time in zip(rows(frame, schema, self.context.keys.names), frame.time.tolist(), strict=True):
                if row["state"] == "firing":
                    self._keep_one(row["alert"], row[schema.key], time)
        self._prune()

    def _keep_one(self, alert: str, key: str, time: int) -> None:
        path = self.folder / _part(alert) / _part(key) / f"{time // 1_000_000}.jpg"
        if path.exists():
            return
        picture = self.context.pictures.nearest(key, time, int(self.settings.within))
        if picture is None:
            log.warning("%s: there is no picture of %s at %s", self.context.name, key, instant_text(time))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        with half.open("wb") as out:
            out.write(picture.jpeg)
            out.flush()
            os.fsync(out.fileno())
        half.rename(path)

    def _prune(self) -> None:
        assert self.context.clock is not None
        oldest = (self.context.clock.wall() - int(self.settings.retention)) // 1_000_000
        held = 0
        for path in reversed(self._all()):  # the newest first
            held += path.stat().st_size
            if int(path.stem) < oldest or held > self.settings.max_size:
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """By time."""
        found = [path for path in self.folder.glob("*/*/*.jpg") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem))

    # --- telling ---

    def mount(self, server: Server) -> None:
        server.route("GET", "/api/snapshots", self._list)
        server.route("GET", "/api/snapshots/{alert}/{key}/{time}", self._picture)

    @described(
        Operation(
            "The pictures of alerts, the newest first",
            SnapshotsTold,
            (Parameter("alert", "Only those of this alert."), Parameter("key", "Only those of this camera.")),
        )
    )
    async def _list(self, request: web.Request) -> web.StreamResponse:
        if unknown := set(request.query) - {"alert", "key"}:
            raise HttpProblem(400, f"unknown: {', '.join(sorted(unknown))}; there are alert and key")
        found = await asyncio.to_thread(self._found, request.query.get("alert"), request.query.get("key"))
        return answer({"snapshots": found})

    def _found(self, alert: str | None, key: str | None) -> list[dict[str, Any]]:
        wanted = [None if name is None else _part(name) for name in (alert, key)]
        told: list[dict[str, Any]] = []
        for path in reversed(self._all()):
            own = (path.parent.parent.name, path.parent.name)
            if len(told) < LISTED and all(w in (None, o) for w, o in zip(wanted, own, strict=True)):
                told.append(_told(path, own))
        return told

    @described(Operation("A picture", None, given=("image/jpeg",)))
    async def _picture(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        alert, key, time = (request.match_info[name] for name in ("alert", "key", "time"))
        path = self.folder / _part(alert) / _part(key) / f"{time}.jpg"
        if not time.isdecimal() or not path.is_file():
            raise HttpProblem(404, "there is no such picture, or no more")
        return web.FileResponse(path, headers={"Content-Type": "image/jpeg", "Cache-Control": "private, max-age=86400"})


def _told(path: Path, own: tuple[str, str]) -> dict[str, Any]:
    from urllib.parse import unquote

    alert, key = own
    return {
        "alert": unquote(alert),
        "key": unquote(key),
        "time": instant_text(int(path.stem) * 1_000_000),
        "url": f"/api/snapshots/{alert}/{key}/{path.stem}",
        "bytes": path.stat().st_size,
    }


def _part(name: str) -> str:
    """A name as a part of a path: no slash, no dots alone, not too long."""
    made = quote(name, safe="")[:200]
    return made.replace(".", "%2E") if not made.strip(".") else made
