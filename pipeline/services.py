"""What a running pipeline can tell of itself: the `Services` of sources and sinks that answer over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import inside, metrics
from pipeline.component import Acknowledged, AlertNotes, RowsQuery, Silence, StreamInfo, Table, Unanswerable
from pipeline.flash import Budget
from pipeline.frame import NO_PROGRESS, Frame, Schema, concatenate, empty
from pipeline.graph import Forget
from pipeline.journal import alerts, dead, history, points, sql_tables
from pipeline.journal import sql as asked
from pipeline.journal.commit import those_set_aside
from pipeline.letters import AT_ONCE, shown, why_not
from pipeline.merge import Merge
from pipeline.metrics import Metric
from pipeline.problem import did_you_mean

if TYPE_CHECKING:
    import apsw

    from pipeline.delivery import Delivery
    from pipeline.engine import Engine


@dataclass
class Reloads:
    """How the pipeline file of a running process is exchanged, and what became of that."""

    take_over: Callable[
        [bool], list[str]
    ]  # what the file as it is now changes; True: only say so. ConfigError if it is wrong
    count: int = 0  # times that one has
    failure: str = ""  # why the last one that was tried has not


class EngineServices:
    """Answers from what is durable; questions to the disk run in the readers' threads."""

    def __init__(self, engine: Engine, delivery: Delivery | None, reloads: Reloads | None = None) -> None:
        self.engine = engine
        self.reloads = reloads
        self.outbox = delivery
        self.started = time.monotonic()
        self.ready = False
        self.flash = Budget(engine.store.log, engine.clock, engine.settings.endurance)
        engine.published.append(lambda *_: self.flash.look())
        self._replaying = asyncio.Lock()
        self._asking = asyncio.Lock()
        self.set_aside = those_set_aside(engine.store.folder)

    def schema(self, stream: str) -> Schema:
        return self.engine.graph.streams[stream]

    def latest(self, stream: str) -> Frame:
        kept = self.engine.latest.get(stream)
        return empty(self.schema(stream), NO_PROGRESS) if kept is None else kept.frame()

    def alerts(self, stream: str) -> Frame:
        kept = self.engine.alerts.get(stream)
        return empty(self.schema(stream), NO_PROGRESS) if kept is None else kept.frame()

    async def rows(self, query: RowsQuery) -> Frame:
        schema, codes = self.schema(query.stream), self._codes(query.keys)
        answer = points.rows if query.points else history.rows
        return await self.engine.store.read(lambda db: answer(db, query, schema, codes))

    async def sql(
        self, streams: Sequence[str], sql: str, parameters: Sequence[Any] | Mapping[str, Any], limit: int
    ) -> Table:
        schemas, keys, now = (
            {name: self.schema(name) for name in streams},
            self.engine.graph.keys,
            self.engine.clock.wall(),
        )

        def ask(db: apsw.Connection) -> Table:
            return asked.ask(sql_tables.Source(db, schemas, keys.names, keys.get), sql, parameters, limit, now)

        async with self._asking:  # one at a time: the other readers' threads are for everyone else
            return await self.engine.store.read(ask)

    def listen(self, heard: Callable[[Mapping[str, Frame], int], None]) -> int:
        self.engine.published.append(lambda writes, end: heard(writes.history, end))
        return self.engine.next_seq

    async def since(
        self, stream: str, first: int, end: int, keys: Sequence[str] | None, limit: int
    ) -> tuple[Frame, int]:
        schema, codes = self.schema(stream), self._codes(keys)
        return await self.engine.store.read(lambda db: history.since(db, stream, schema, first, end, codes, limit))

    def _codes(self, keys: Sequence[str] | None) -> list[int] | None:
        if keys is None:
            return None
        return [code for key in keys if (code := self.engine.graph.keys.get(key)) is not None]

    async def streams(self) -> list[StreamInfo]:
        """Every recorded stream."""
        found = await self.engine.store.read(
            lambda db: [history.info(db, name, latest.schema) for name, latest in self.engine.latest.items()]
        )
        names = self.engine.graph.keys.names
        for info in found:
            if info.schema.key:
                info.keys = sorted(names[code] for code in self.latest(info.name).key.tolist())
        return found

    async def delivery(self) -> list[dict[str, Any]]:
        return [] if self.outbox is None else await self.outbox.status()

    async def alert_notes(self, ids: Sequence[str], rows: Sequence[tuple[str, int, int]]) -> AlertNotes:
        now = self.engine.clock.wall()

        def look(db: Any) -> AlertNotes:
            known = alerts.fates(db, [alerts.Row(*row) for row in rows])
            return AlertNotes(alerts.acknowledged(db, ids), known, alerts.silences(db, now))

        return await self.engine.store.read(look)

    def inputs(self, node: str) -> tuple[str, ...]:
        return self.engine.graph.config.nodes[node].inputs if node in self.engine.graph.edges else ()

    async def explain(self, node: str, key: int, readings: Mapping[str, Frame]) -> dict[str, Any] | None:
        edge = self.engine.graph.edges[node]
        fit = Merge(edge.context.schema).fit
        came = concatenate(
            [fit(frame) for frame in readings.values() if len(frame)] or [empty(edge.context.schema, NO_PROGRESS)]
        )
        found = edge.operator.explain(key, came.take(np.argsort(came.time, kind="stable")))
        await self.engine.store.write(lambda _: None)  # the graph may be ahead of what is durable
        return found

    async def acknowledge(self, id_: str, by: str, note: str) -> None:
        done = Acknowledged(by, note, self.engine.clock.wall())
        await self.engine.store.write(lambda db: alerts.acknowledge(db, id_, done))

    async def silence(self, alert: str, key: str | None, length: int, by: str, note: str) -> None:
        now = self.engine.clock.wall()
        new = Silence(alert, key, now + length, by, note, now)
        await self.engine.store.write(lambda db: alerts.silence(db, new))

    async def forget(self, key: str, stream: str | None) -> list[str] | None:
        graph = self.engine.graph
        code = graph.keys.get(key)
        if code is None:
            raise Unanswerable(f'there is no key "{key[:100]}"')
        if stream is not None and stream not in graph.streams:
            raise Unanswerable(f'there is no stream "{stream[:100]}"{did_you_mean(stream, graph.streams)}')
        return await self.engine.forget(Forget(code, stream))

    async def dead(self, limit: int, node: str | None = None, before: int | None = None) -> list[dict[str, Any]]:
        letters = await self.engine.store.read(lambda db: dead.letters(db, limit, node, before))
        return shown(self.engine.graph, letters)

    async def replay_dead(self, ids: Sequence[int] | None, node: str | None = None) -> dict[str, Any]:
        # Whoever asked may go away; what has begun is brought to its end, and no one else begins before.
        return await asyncio.shield(asyncio.create_task(self._replay_dead(ids, node)))

    async def _replay_dead(self, ids: Sequence[int] | None, node: str | None) -> dict[str, Any]:
        read, graph = self.engine.store.read, self.engine.graph
        failed: dict[int, str] = {}
        async with self._replaying:
            wanted = sorted(set(ids)) if ids is not None else await read(lambda db: dead.numbers(db, node))
            for at in range(0, len(wanted), AT_ONCE):
                part = wanted[at : at + AT_ONCE]
                letters = await read(lambda db, part=part: dead.chosen(db, part))  # type: ignore[misc]
                failed |= dict.fromkeys({*part} - {letter.id for letter in letters}, "there is no such letter")
                stay = {letter.id: why for letter in letters if (why := why_not(graph, letter))}
                if tried := [letter for letter in letters if letter.id not in stay]:
                    stay |= await self.engine.replay_dead(tried)
                failed |= stay
        told = [{"id": id_, "reason": why} for id_, why in sorted(failed.items())]
        return {"replayed": len(wanted) - len(failed), "failed": told}

    def reload(self, *, only_plan: bool) -> list[str]:
        if self.reloads is None:
            raise Unanswerable("this pipeline was started without a file, and has none to take over")
        return self.reloads.take_over(only_plan)

    def health(self) -> dict[str, Any]:
        """`status` is "ok" or "degraded"; `reasons` say why."""
        reasons = [f"{i.name}: {i.failure}" for i in self.engine.intakes.values() if i.failure]
        reasons += [f"{i.name}: {i.source.trouble}" for i in self.engine.intakes.values() if i.source.trouble]
        reasons += [f"{name}: {edge.failure}" for name, edge in self.engine.graph.edges.items() if edge.failure]
        reasons += [f"{name}: {s.trouble}" for name, s in self.engine.graph.sinks.items() if s.trouble]
        reasons += self.engine.outside.troubles.values()
        if self.engine.store.trouble:
            reasons.append(f"disk: {self.engine.store.trouble}")
        for damaged in self.set_aside:
            if damaged.exists():
                reasons.append(f"a damaged database was set aside as {damaged.name}: look at it, then move it away")
        if self.reloads is not None and self.reloads.failure:
            reasons.append(f"the pipeline file was not taken over, the one before it runs: {self.reloads.failure}")
        unsure = self.engine.arrivals.unsure(self.engine.clock.wall())
        if unsure:
            reasons.append(
                "the clock is not to be trusted: it was not set, or was set back; times of arrival are marked"
            )
        if self.engine.blocked():
            reasons.append("a sink that blocks has a full buffer: sources are held back")
        return {
            "status": "degraded" if reasons else "ok",
            "reasons": reasons,
            "clock": "unsure" if unsure else "sure",  # unsure: never set, or set back; times of arrival are marked
            "pipeline": self.engine.settings.name,
            "ready": self.ready,
            "uptime_seconds": round(time.monotonic() - self.started, 3),
            "step": self.engine.number,
            "reloads": self.reloads.count if self.reloads is not None else 0,
            "flash": self.flash.told(),
        }

    def graph(self) -> list[dict[str, Any]]:
        """Each node with its inputs and its counts."""
        nodes = []
        graph = self.engine.graph
        for name, node in graph.config.nodes.items():
            shown: dict[str, Any] = {"name": name, "kind": node.kind, "type": node.type}
            shown["inputs"] = list(graph.inputs.get(name, ()))
            if intake := self.engine.intakes.get(name):
                shown |= {"rows_out": intake.taken, "refused": intake.refused, "waiting": len(intake.inbox)}
                shown["error"] = intake.failure or intake.source.trouble or None
            if edge := graph.edges.get(name):
                shown |= {"rows_in": edge.rows_in, "rows_out": edge.rows_out, "error": edge.failure or None}
            if (sink := graph.sinks.get(name)) and sink.trouble:
                shown["error"] = sink.trouble
            nodes.append(shown)
        return nodes

    def debug(self) -> dict[str, Any]:
        return inside.told(self.engine)

    async def metrics(self) -> list[Metric]:
        held = await self.engine.store.read(dead.held)
        return [*metrics.of_engine(self.engine), *metrics.of_delivery(await self.delivery()), metrics.of_letters(held)]
