"""What is seen in a picture: what moves, how bright and how sharp it is, whether the lens is covered. Needs OpenCV."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

Image = Any  # an array of OpenCV

WIDE = 320  # pixels that are looked at; what a person moves is still seen, and noise is not
BLUR = 7
DIFFERS = 18  # grey levels, of 255: more than noise and less than a grey coat before a grey wall
SMALLEST = 0.0005  # a speck that moves, as a share of the picture, is noise
LEARNS = 0.05  # of each picture, into the background
LEARNS_MOVING = (
    0.01  # where it moves: no trail behind what passes, and what stays is background after some 200 pictures
)
FLAT = 6.0  # deviation of grey levels below which there is nothing to see


class Seen(NamedTuple):
    motion: float  # share of the picture that moves, 0 to 1
    box: tuple[float, float, float, float] | None  # around all that moves: x, y, width, height as shares
    brightness: float  # mean grey level, 0 to 255
    sharpness: float  # variance of the Laplacian (Pech-Pacheco et al., 2000): compare with the same camera's, not with another's
    blocked: bool  # nothing to see: covered, or without any light


class Looking:
    """Compares each picture with a background that is learned as pictures come (a running mean)."""

    def __init__(self, area: tuple[float, float, float, float] | None = None) -> None:
        self.area = area
        self._background: Image = None

    def see(self, image: Image) -> Seen:
        grey = cv2.cvtColor(self._within(image), cv2.COLOR_BGR2GRAY)
        high, wide = grey.shape
        if wide > WIDE:
            grey = cv2.resize(grey, (WIDE, max(1, round(high * WIDE / wide))), interpolation=cv2.INTER_AREA)
        sharpness = float(cv2.Laplacian(grey, cv2.CV_64F).var())
        motion, box = self._moves(cv2.GaussianBlur(grey, (BLUR, BLUR), 0))
        return Seen(motion, box, float(grey.mean()), sharpness, float(grey.std()) < FLAT)

    def _within(self, image: Image) -> Image:
        if self.area is None:
            return image
        high, wide = image.shape[:2]
        x, y, w, h = self.area
        return image[int(y * high) : max(int((y + h) * high), 1), int(x * wide) : max(int((x + w) * wide), 1)]

    def _moves(self, grey: Image) -> tuple[float, tuple[float, float, float, float] | None]:
        if self._background is None or self._background.shape != grey.shape:
            self._background = grey.astype(np.float32)  # the first picture: nothing is known to move
            return 0.0, None
        differs = cv2.absdiff(grey, cv2.convertScaleAbs(self._background))
        moves = cv2.threshold(differs, DIFFERS, 255, cv2.THRESH_BINARY)[1]
        cv2.accumulateWeighted(grey, self._background, LEARNS, mask=cv2.bitwise_not(moves))
        cv2.accumulateWeighted(grey, self._background, LEARNS_MOVING, mask=moves)
        share = cv2.countNonZero(moves) / moves.size
        if share < SMALLEST:
            return 0.0, None
        x, y, w, h = cv2.boundingRect(moves)
        high, wide = grey.shape
        return share, (x / wide, y / high, w / wide, h / high)


def jpeg(image: Image, wide: int, quality: int) -> bytes:
    """A picture to keep, no wider than that."""
    if image.shape[1] > wide:
        high = max(1, round(image.shape[0] * wide / image.shape[1]))
        image = cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the picture cannot be packed as JPEG")
    return bytes(data)
