"""Functions of one's own for `type = "python"`: see smooth.toml."""

from typing import Any

import numpy as np
from reactivex import Observable
from reactivex import operators as ops

from pipeline.frame import Column, Frame


class Smooth:
    """Exponential smoothing of one field, by key. `snapshot` and `restore` make a restart exact."""

    def __init__(self, field: str, weight: float) -> None:
        self.field = field
        self.weight = weight
        self.last: dict[int, float] = {}  # by the key's code

    def __call__(self, source: Observable[Frame]) -> Observable[Frame]:
        return source.pipe(ops.map(self.smoothed))

    def smoothed(self, frame: Frame) -> Frame:
        values, present = frame[self.field]
        smooth = values.astype(float)
        for row, key in enumerate(frame.key.tolist()):
            if present is None or present[row]:
                before = self.last.get(key, smooth[row])
                smooth[row] = self.last[key] = before + self.weight * (smooth[row] - before)
        return frame.with_columns({self.field: Column(smooth, present)})

    def snapshot(self) -> dict[str, Any]:
        return {"keys": np.array([*self.last], int), "values": np.array([*self.last.values()], float)}

    def restore(self, state: dict[str, Any]) -> None:
        self.last = dict(zip(state["keys"].tolist(), state["values"].tolist(), strict=True))


def rises(readings: Observable[dict[str, Any]]) -> Observable[dict[str, Any]]:
    """Where the temperature has risen since the reading before, whatever its key: an ordinary chain over single readings."""
    return readings.pipe(
        ops.pairwise(),
        ops.map(lambda two: {**two[1], "rise": two[1]["temperature"] - two[0]["temperature"]}),
        ops.filter(lambda reading: reading["rise"] > 0),
    )


def same(readings: Observable[dict[str, Any]]) -> Observable[dict[str, Any]]:
    """Every reading as it is: the least that a chain can be."""
    return readings
