"""Keys that are gone for good: a sensor that was replaced, a name that was misspelt once.

Somebody asks, the next step holds it, and is journaled with it; when that is durable the key is no longer shown. What the
history has of it stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.graph import Forget, Graph
    from pipeline.latest import Latest, LatestAlerts

Dropped = list[str] | None  # the streams that showed a row of the key; None: the step has failed


class Forgetting:
    """What waits for a step, and what is shown of keys."""

    def __init__(self, graph: Graph, latest: Mapping[str, Latest], alerts: Mapping[str, LatestAlerts]) -> None:
        self._graph = graph
        self._latest = latest
        self._alerts = alerts
        self._waiting: list[tuple[Forget, asyncio.Future[Dropped]]] = []

    def __bool__(self) -> bool:
        """Something waits for a step."""
        return bool(self._waiting)

    def ask(self, forget: Forget) -> asyncio.Future[Dropped]:
        """Resolved when it is durable."""
        done: asyncio.Future[Dropped] = asyncio.get_running_loop().create_future()
        self._waiting.append((forget, done))
        return done

    def take(self) -> Asked:
        """All that waits, for this step."""
        waiting, self._waiting = self._waiting, []
        return Asked(self, waiting)

    def drop(self, forgets: Sequence[Forget | tuple[int, str | None]]) -> list[list[str]]:
        """The step is durable: no longer show these keys. For each the streams that did."""
        found = []
        for key, stream in forgets:
            reached = self._graph.reach(stream)
            found.append([name for name, latest in self._latest.items() if name in reached and latest.forget(key)])
            for name, alerts in self._alerts.items():
                if name in reached:
                    alerts.forget(key)
        return found


class Asked:
    """What one step forgets, and who waits for it."""

    def __init__(self, forgetting: Forgetting, waiting: list[tuple[Forget, asyncio.Future[Dropped]]]) -> None:
        self._forgetting = forgetting
        self._waiting = waiting
        self.forgets = [forget for forget, _ in waiting]

    def finish(self, error: BaseException | None) -> None:
        """The step is durable, or has failed."""
        if not self._waiting:
            return
        dropped: list[Dropped] = [None for _ in self.forgets]
        if error is None:
            dropped = [*self._forgetting.drop(self.forgets)]
        for (_, done), streams in zip(self._waiting, dropped, strict=True):
            if not done.done():
                done.set_result(streams)
