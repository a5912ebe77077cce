"""A simulation that finds nothing proves nothing: each of these faults is planted, and found within a few seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import apsw
import pytest

from pipeline.engine import Engine
from pipeline.frame import Frame, concatenate
from pipeline.journal import outbox, state
from pipeline.thin import thin
from pipeline.writes import Writes
from tests.simulation.disk import Cut
from tests.simulation.simulation import Failed, Simulation, simulate

Plant = Callable[[pytest.MonkeyPatch], Callable[[Simulation], None]]
WITHIN = 60  # seeds


def nothing(_: Simulation) -> None: ...


def acknowledge_before_the_commit(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    commit = Engine._commit

    def early(self: Engine, writes: Any, arrived: dict[str, Any], *rest: Any) -> None:
        for name, came in arrived.items():
            self._acknowledge([(name, came.waiting, came.receipts())], None)
        commit(self, writes, arrived, *rest)

    patch.setattr(Engine, "_commit", early)
    return nothing


def bounds_of_a_batch_not_recorded(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    begin = outbox.begin

    def forgetful(db: Any, *rest: Any) -> Any:
        bounds = begin(db, *rest)
        db.execute("DELETE FROM batches")
        return bounds

    patch.setattr(outbox, "begin", forgetful)
    return nothing


def outbox_outside_the_transaction(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    commit = Engine._commit

    def apart(self: Engine, writes: Writes, *rest: Any) -> None:
        later, writes.outbox = writes.outbox, []
        commit(self, writes, *rest)
        if not later:
            return

        def work(db: Any) -> None:
            for sink, stream, frame, keep in later:
                outbox.put(db, sink, stream, frame, keep=keep, clock=0)

        store: Any = self.store

        def submit() -> None:
            if not store.disk.dead:
                store.submit(work, lambda *_: None)

        store.loop.call_later(0.3, submit)

    patch.setattr(Engine, "_commit", apart)
    return nothing


def place_in_a_file_before_its_rows(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    commit = Engine._commit

    def early(self: Engine, writes: Writes, *rest: Any) -> None:
        with contextlib.suppress(apsw.Error, Cut):
            for name, position in writes.positions.items():
                state.save_position(self.store.connection, name, position)
        commit(self, writes, *rest)

    patch.setattr(Engine, "_commit", early)
    return nothing


def thinning_that_counts_a_row_twice(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def twice(frame: Frame, *rest: Any) -> Frame:
        return thin(concatenate([frame, frame.take(slice(0, 1))]), *rest)

    patch.setattr(outbox, "thin", twice)
    return nothing


def newest_dropped_first(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def newest(db: Any, sink: str, over: int) -> int:
        freed = dropped = 0
        free = "sink = ? AND NOT id BETWEEN ? AND ? AND keep = 0 ORDER BY id DESC"
        entries = f"SELECT id, rows - sent, {outbox.COST} FROM outbox WHERE {free}"
        for entry, count, size in list(db.execute(entries, (sink, *outbox._under_way(db, sink)))):
            if freed < over:
                db.execute("DELETE FROM outbox WHERE id = ?", (entry,))
                freed, dropped = freed + size, dropped + count
        outbox._count(db, sink, dropped=dropped)
        return freed

    patch.setattr(outbox, "make_room", newest)
    return nothing


def refusals_not_journaled(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def forgetful(self: Writes, db: Any) -> None:
        for name in [name for name in self.journal if "." in name]:
            del self.journal[name]
        call(self, db)

    call = Writes.__call__
    patch.setattr(Writes, "__call__", forgetful)
    return nothing


def forgetting_not_journaled(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    """And no checkpoint right behind it, which would hide that."""
    entries = state.entries

    def forgetful(db: Any) -> Any:
        found = entries(db)
        for _, entry in found:
            entry.forgotten = []
        return found

    patch.setattr(state, "entries", forgetful)
    patch.setattr(Engine, "count_step", lambda self, _: setattr(self, "steps_since", self.steps_since + 1))
    return nothing


def checkpoint_without_fsync(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def plant(simulation: Simulation) -> None:
        simulation.disk.ignores_sync = lambda path: path.endswith(".db")

    return plant


def commit_without_fsync(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def plant(simulation: Simulation) -> None:
        simulation.disk.ignores_sync = lambda path: path.endswith("-wal")

    return plant


def file_without_fsync(patch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    def plant(simulation: Simulation) -> None:
        simulation.disk.ignores_sync = lambda path: path.endswith(".csv")

    return plant


@pytest.mark.parametrize(
    "plant",
    [
        acknowledge_before_the_commit,
        bounds_of_a_batch_not_recorded,
        outbox_outside_the_transaction,
        place_in_a_file_before_its_rows,
        thinning_that_counts_a_row_twice,
        newest_dropped_first,
        refusals_not_journaled,
        forgetting_not_journaled,
        checkpoint_without_fsync,
        commit_without_fsync,
        file_without_fsync,
    ],
    ids=lambda plant: plant.__name__,
)
def test_it_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(monkeypatch)
    for seed in range(WITHIN):
        try:
            simulate(seed, planted)
        except Failed as failed:
            print(f"{plant.__name__}: seed {seed}: {failed}")  # noqa: T201 - `pytest -rP` shows after how many
            return
    pytest.fail(f"not found in {WITHIN} seeds")
