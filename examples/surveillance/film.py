"""Makes yard.mp4: a wall in the evening, somebody who crosses the yard after 6 s, and a hand before the lens after 20 s.

    python examples/surveillance/film.py

Needs OpenCV. The film is drawn and not taken, so that it shows nobody.
"""

from pathlib import Path

import cv2
import numpy as np

WIDE, HIGH, RATE, SECONDS = 320, 240, 10, 30
WALKS, COVERED = (60, 140), 200  # pictures


def main() -> None:
    random = np.random.default_rng(7)
    bricks = random.integers(70, 130, (HIGH // 8, WIDE // 16), np.uint8)
    wall = cv2.resize(bricks, (WIDE, HIGH), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    wall[200:, :] = 60  # the ground
    path = str(Path(__file__).with_name("yard.mp4"))
    out = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDE, HIGH))
    for i in range(RATE * SECONDS):
        grey = np.full((HIGH, WIDE), 8, np.int16) if i >= COVERED else wall + random.integers(-2, 3, (HIGH, WIDE))
        picture = cv2.cvtColor(np.clip(grey, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
        if WALKS[0] <= i < WALKS[1]:
            x = 10 + (i - WALKS[0]) * 4
            cv2.rectangle(picture, (x - 9, 130), (x + 9, 205), (40, 30, 30), -1)
            cv2.circle(picture, (x, 120), 11, (170, 180, 200), -1)
        out.write(picture)
    out.release()


if __name__ == "__main__":
    main()
