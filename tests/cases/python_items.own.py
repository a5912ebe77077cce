"""Where a value has risen since the key's reading before."""

from typing import Any

from reactivex import Observable
from reactivex import operators as ops


class Rises:
    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def __call__(self, readings: Observable[dict[str, Any]]) -> Observable[dict[str, Any]]:
        return readings.pipe(ops.map(self.rise), ops.filter(rose))

    def rise(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["value"] < 0:
            raise ValueError("below zero")
        before = self.last.get(item["id"], item["value"])
        self.last[item["id"]] = item["value"]
        return {"rise": item["value"] - before}

    def snapshot(self) -> dict[str, float]:
        return self.last

    def restore(self, state: dict[str, float]) -> None:
        self.last = state


def rose(row: dict[str, Any]) -> bool:
    return bool(row["rise"] > 0)
