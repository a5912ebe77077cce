"""Pictures of a camera or a film, one after the other. Needs OpenCV; everything here blocks, and runs in a thread."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, NamedTuple

import cv2

OPEN_MS = 10_000
READ_MS = 10_000  # a camera that gives nothing for so long is gone
# OpenCV's log would go to standard error, with the address and what is secret in it.
cv2.utils.logging.setLogLevel(0)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Shot(NamedTuple):
    image: Any
    at: int  # ns since the beginning of a film; 0 of a camera
    frame: int  # how many were before it


class Capture:
    """OSError where it cannot be opened, or gives no more."""

    def __init__(self, url: str) -> None:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
        if url.startswith("/dev/") or url.isdecimal():
            self._capture = cv2.VideoCapture(url if url.startswith("/") else int(url), cv2.CAP_V4L2)
        else:
            self._capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            self._capture.release()
            raise OSError("it cannot be opened")

    def close(self) -> None:
        self._capture.release()


class Film(Capture):
    """A file: each picture once, with its time in the film."""

    def __init__(self, path: str, every: int, after: int = -1) -> None:
        super().__init__(path)
        rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self._ns = 1e9 / rate
        self.length = round(max(self._capture.get(cv2.CAP_PROP_FRAME_COUNT), 0) * self._ns)
        self._every = every
        self._frame = 0
        self._due = 0
        while after >= self._frame and self._capture.grab():  # to where an earlier life came
            self._due = self._after(self._frame) if round(self._frame * self._ns) >= self._due else self._due
            self._frame += 1

    def _after(self, frame: int) -> int:
        """When the next one is due."""
        return (round(frame * self._ns) // self._every + 1) * self._every

    def next(self) -> Shot | None:
        """The next one that is due; None at the end."""
        while self._capture.grab():
            frame, at = self._frame, round(self._frame * self._ns)
            self._frame += 1
            if at >= self._due:
                self._due = self._after(frame)
                done, image = self._capture.retrieve()
                if done:
                    return Shot(image, at, frame)
        return None


class Camera(Capture):
    """A device or a stream: the newest picture, whenever one asks. A thread of its own takes all that come, or the ones that
    wait in between would be shown minutes later."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock = threading.Condition()
        self._image: Any = None
        self._frame = 0
        self._ended = False
        self._thread = threading.Thread(target=self._take, name="camera", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while not self._ended:
            done, image = self._capture.read()
            with self._lock:
                self._ended = self._ended or not done
                self._image, self._frame = (image, self._frame + 1) if done else (None, self._frame)
                self._lock.notify_all()
        self._capture.release()

    def next(self, after: int) -> Shot:
        """The newest, once it is another than `after`. OSError when there will be none."""
        until = time.monotonic() + READ_MS / 1_000
        with self._lock:
            while self._frame == after and not self._ended:
                if not self._lock.wait(until - time.monotonic()):
                    raise OSError("it gives no pictures")
            if self._image is None:
                raise OSError("it gives no more pictures")
            return Shot(self._image, 0, self._frame)

    def close(self) -> None:
        self._ended = True
        self._thread.join(READ_MS / 1_000)
