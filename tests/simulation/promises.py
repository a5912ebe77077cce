"""What must hold of a device when all is done, and of its buffer after every commit, seen from outside."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import apsw
import numpy as np
import orjson

from pipeline.component import RowsQuery
from pipeline.frame import Frame
from pipeline.journal import history, outbox, rolled, rollup, state
from tests.peer import ms
from tests.simulation import oracle
from tests.simulation.device import SimulatedPipeline

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SOURCES = ("readings", "messages", "grown", "recorded")
Row = dict[str, Any]


class Buffer:
    """Watches the outbox of a cloud from one commit to the next: what leaves it without having been sent, and in which order."""

    def __init__(self, fail: Callable[[str], NoReturn], when_full: str) -> None:
        self.fail = fail
        self.when_full = when_full
        self.waiting: dict[int, bool] = {}  # entry, and whether it must be kept
        self.begun = range(0)  # the entries of the batch under way

    def look(self, db: apsw.Connection) -> None:
        waiting = {i: bool(keep) for i, keep in db.execute("SELECT id, keep FROM outbox WHERE sink = 'cloud'")}
        batch = outbox.unfinished(db, "cloud")
        begun = range(0) if batch is None else range(batch.first_id, batch.last_id + 1)
        sent = {*self.begun, *begun}
        gone = self.waiting.keys() - waiting.keys() - sent
        if any(self.waiting[entry] for entry in gone):
            self.fail("an alert was dropped from the buffer")
        if gone and self.when_full == "block":
            self.fail("rows left a buffer that blocks, and were not sent")
        if gone and self.when_full == "drop_oldest":
            older = [i for i, keep in waiting.items() if not keep and i < max(gone) and i not in sent]
            if older:
                self.fail(f"entry {max(gone)} was dropped and the older {older[0]} was not")
        self.waiting, self.begun = waiting, begun


class Promises:
    def __init__(self, simulation: Simulation) -> None:
        self.sim = simulation
        self.fail = simulation.fail
        self.folder = simulation.folder
        self.sent = simulation.world.sent
        self.db = apsw.Connection(str(self.folder / "state" / "headwater.db"))
        self.names = state.keys(self.db)
        self.streams = SimulatedPipeline(simulation).graph.streams

    def check(self) -> outbox.Waiting:
        try:
            if self.db.pragma("integrity_check") != "ok":
                self.fail("the database is damaged")
            kept = self._kept()
            self._readings(kept)
            self._rollups()
            self._refused(kept)
            self._copy(kept)
            forgotten = [oracle.Forgotten(seq, name) for _, seq, name in self.sim.forgotten]
            self._alerts("anywhere", oracle.outputs(kept, list(SOURCES), forgotten))
            for source in ("grown", "recorded"):
                own = [r for r in kept if r.source == source]
                self._windows(f"{source}_windows", oracle.outputs(own, [source], [], ended=source == "recorded"))
            live = [r for r in kept if r.source in ("readings", "messages")]
            wanted = oracle.outputs(live, ["readings", "messages"], forgotten, least=0.0)
            self._windows("ten_seconds", wanted)
            self._alerts("high", wanted)
            self._archive(wanted)
            held = outbox.status(self.db, "cloud")
            if held.rows:
                self.fail("rows are left in the outbox")
            self._cloud(kept, wanted, held)
        finally:
            self.db.close()
        return held

    def expect(self, what: str, found: Counter[Any], wanted: Counter[Any]) -> None:
        if found != wanted:
            self.fail(
                f"{what}: too many {list((found - wanted).items())[:3]}, missing {list((wanted - found).items())[:3]}"
            )

    # --- what was kept ---

    def _stored(self, stream: str) -> Frame:
        return history.rows(self.db, RowsQuery(stream, limit=10**6), self.streams[stream], None)

    def _kept(self) -> list[oracle.Reading]:
        """The readings of all sources in the order of their arrival."""
        kept = []
        for source in SOURCES:
            frame = self._stored(source)
            columns = [frame.seq, frame.key, frame.time // 1_000_000, frame["value"].values, frame["n"].values]
            for seq, key, ts, value, n in zip(*(c.tolist() for c in columns), strict=True):
                kept.append((seq, oracle.Reading(source, self.names[key], ts, value, n, seq)))
        kept.sort()
        if len({seq for seq, _ in kept}) != len(kept):
            self.fail("two readings have one arrival number")
        return [reading for _, reading in kept]

    def _readings(self, kept: list[oracle.Reading]) -> None:
        for reading in kept:
            sent = self.sent.get(reading.n)
            if sent is None or (sent["id"], sent["ts"], sent["value"]) != (reading.id, reading.ts, reading.value):
                self.fail(f"{reading} was never sent")
        found = Counter(r.n for r in kept)
        lost = [self.sent[n] for n in self.sim.world.acknowledged if not found[n]]
        if lost:
            self.fail(f"{len(lost)} acknowledged readings are lost: {lost[:3]}")

    def _rollups(self) -> None:
        """Each row of the history counts once in each rollup, and an interval's sums and extremes are theirs."""
        for stream in (*SOURCES, "ten_seconds"):
            frame, schema = self._stored(stream), self.streams[stream]
            field = "n" if stream == "ten_seconds" else "value"
            for level in rollup.known(self.db).of(stream):
                wanted: dict[tuple[int, int], list[float]] = {}
                for key, time, value in zip(
                    frame.key.tolist(), frame.time.tolist(), frame[field].tolist(), strict=True
                ):
                    wanted.setdefault((key, time - time % level.every), []).append(value)
                found: dict[tuple[int, int], tuple[float, ...]] = {}
                for said in rolled.summaries(self.db, level, schema, None, -(2**60), 2**62, descending=False):
                    of_each = zip(
                        said.key.tolist(), said.start.tolist(), *(c.tolist() for c in said.fields[field]), strict=True
                    )
                    found |= {(key, start): (n, round(total, 6), *ends) for key, start, n, total, *ends in of_each}
                right = {at: (len(v), round(sum(v), 6), min(v), max(v)) for at, v in wanted.items()}
                if found != right:
                    self.fail(f"{level.name}: {sorted(found.items() ^ right.items())[:4]}")

    def _refused(self, kept: list[oracle.Reading]) -> None:
        """Each reading was kept or refused, once; more than once only what was sent again without a key."""
        told: Counter[tuple[str, str]] = Counter()
        times: list[int] = []
        for source in SOURCES:
            frame = self._stored(f"{source}.invalid")
            raws = frame["raw"].values.tolist()
            told += Counter((f"{source}.invalid", raw) for raw in raws)
            times += frame.time.tolist()
            found = Counter((r.id, r.ts) for r in kept if r.source == source) + Counter(map(_told, raws))
            wanted = Counter((r["id"], r["ts"]) for r in self.sim.world.sent_by.get(source, ()))
            for again in [known for known in found if known[0] == "c2" and known in wanted]:
                found[again] = min(found[again], wanted[again])
            self.expect(f"readings of {source}, kept or refused", found, wanted)
            ((letters,),) = self.db.execute("SELECT count(*) FROM dead WHERE node = ?", (source,))
            if letters != len(raws):
                self.fail(f"{letters} dead letters of {source} for {len(raws)} readings refused")
        self.expect("rows of the refusals", self._lines("refusals.csv", lambda r: (r["stream"], r["raw"])), told)
        self._counted(times)

    def _counted(self, times: list[int]) -> None:
        """Each refusal is in its window or late for it; those of the newest windows may still be open."""
        size = 10_000_000_000
        refused = Counter(time // size * size for time in times)
        frame = self._stored("refused")
        windows = list(zip(frame["start"].values.tolist(), frame["n"].values.tolist(), strict=True))
        late = Counter(time // size * size for time in self._stored("refused.late").time.tolist())
        found = Counter(dict(windows)) + late
        if len(windows) != len(dict(windows)):
            self.fail("a window of refusals left twice")
        self.expect("refusals in windows", found, Counter({start: n for start, n in refused.items() if start in found}))

    # --- what was made of it ---

    def _windows(self, stream: str, wanted: oracle.Outputs) -> None:
        frame = self._stored(stream)
        columns = [frame.key, frame["start"].values // 1_000_000, frame["n"].values, frame["total"].values]
        found = Counter((self.names[k], s, n, t) for k, s, n, t in zip(*(c.tolist() for c in columns), strict=True))
        self.expect(f"windows of {stream}", found, wanted.windows)
        frame = self._stored(f"{stream}.late")
        columns = [frame.key, frame.time // 1_000_000, frame["value"].values]
        late = Counter((self.names[k], t, v) for k, t, v in zip(*(c.tolist() for c in columns), strict=True))
        self.expect(f"late of {stream}", late, wanted.late)

    def _alerts(self, stream: str, wanted: oracle.Outputs) -> None:
        frame = self._stored(stream)
        time = np.where(frame["value"].known(), frame.time // 1_000_000, oracle.FORGOTTEN)
        columns = [frame.key, time, frame["state"].values]
        found = Counter((self.names[k], t, s) for k, t, s in zip(*(c.tolist() for c in columns), strict=True))
        self.expect(f"alerts of {stream}", found, wanted.alerts)

    # --- files ---

    def _lines(self, name: str, read: Callable[[dict[str, str]], Any]) -> Counter[Any]:
        with (self.folder / name).open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        try:
            return Counter(map(read, rows))
        except (KeyError, ValueError, TypeError) as error:
            self.fail(f"{name} is torn: {error!r}")

    def _archive(self, wanted: oracle.Outputs) -> None:
        found = self._lines("archive.csv", lambda r: (r["id"], ms(r["start"]), int(r["n"]), float(r["total"])))
        self.expect("rows of the archive", found, wanted.windows)

    def _copy(self, kept: list[oracle.Reading]) -> None:
        """The history and the file have the same rows, each once."""
        found = self._lines("copy.csv", lambda r: (r["stream"], r["id"], ms(r["time"]), float(r["value"]), int(r["n"])))
        self.expect("rows of the copy", found, Counter(tuple(r[:5]) for r in kept if r.source in ("grown", "recorded")))

    # --- the cloud ---

    def _cloud(self, kept: list[oracle.Reading], wanted: oracle.Outputs, held: outbox.Waiting) -> None:
        if self.sim.cloud.changed:
            self.fail(f"batches changed under their key: {self.sim.cloud.changed[:3]}")
        rows = self.sim.cloud.rows()
        alerts = Counter(
            (r["id"], oracle.FORGOTTEN if r.get("value") is None else ms(r["time"]), r["state"])
            for r in rows
            if r["stream"] == "high"
        )
        self.expect("alerts at the cloud", alerts, wanted.alerts)
        telemetry = Counter((r.source, r.id, r.n, r.value) for r in kept if r.source in ("readings", "messages"))
        telemetry += Counter(("ten_seconds", id_, n, total) for id_, _, n, total in wanted.windows.elements())
        whole = Counter(
            (r["stream"], r["id"], r["n"], r["total" if r["stream"] == "ten_seconds" else "value"])
            for r in rows
            if r["stream"] != "high" and "thinned" not in r
        )
        if whole - telemetry:
            self.fail(f"at the cloud too often: {list((whole - telemetry).items())[:3]}")
        missing = telemetry - whole
        put = telemetry.total() + alerts.total()
        if put != held.sent + held.dropped + held.thinned:
            self.fail(f"{put} rows came into the buffer, and what became of them is counted so: {held}")
        thinned = [row for row in rows if "thinned" in row]
        if self.sim.chosen.when_full == "thin":
            self._thinned(thinned, missing, held.dropped)
        elif thinned or missing.total() != held.dropped:
            self.fail(f"{missing.total()} rows are missing at the cloud, and {held.dropped} were counted as dropped")

    def _thinned(self, thinned: list[Row], missing: Counter[Any], dropped: int) -> None:
        """What is not there whole is in one thinned row each."""
        for row in thinned:
            if row["stream"] != "ten_seconds":
                self._stands_for(row)
        for stream, field in (("readings", "value"), ("messages", "value"), ("ten_seconds", "total")):
            for key in {known[1] for known in missing} | {row["id"] for row in thinned}:
                own = [row for row in thinned if (row["stream"], row["id"]) == (stream, key)]
                stood_for = [known for known in missing.elements() if known[:2] == (stream, key)]
                found, wanted = _Sums.of_thinned(own, field), _Sums.of(stood_for)
                if dropped and found.rows <= wanted.rows:
                    continue  # of a thinned row that was dropped nobody knows any more what it stood for
                if found != wanted:
                    self.fail(f"{stream} of {key}, thinned: {found} for {wanted}")

    def _stands_for(self, row: Row) -> None:
        """First, last, least and greatest are those of readings; `n` tells which."""
        first, last = self.sent[row["n_first"]], self.sent[row["n_last"]]
        if (first["ts"], first["value"]) != (ms(row["time"]), row["value_first"]):
            self.fail(f"{row} does not begin with {first}")
        if (last["ts"], last["value"]) != (ms(row["until"]), row["value_last"]):
            self.fail(f"{row} does not end with {last}")
        own = [r for r in self.sim.world.sent_by[row["stream"]] if r["id"] == row["id"] and r["value"] != "broken"]
        inside = [r for r in own if first["ts"] <= r["ts"] <= last["ts"]]
        if row["id"] != "c2" and row["thinned"] > len(inside):
            self.fail(f"{row} stands for more than {inside}")
        if not row["value_min"] <= row["value"] <= row["value_max"]:
            self.fail(f"{row} has a mean that is none")
        if not {row["n_min"], row["n_max"]} <= {r["n"] for r in inside}:
            self.fail(f"{row} stands for none of {inside}")


class _Sums(NamedTuple):
    """What thinning must keep of the rows of a key."""

    rows: int
    n: int
    values: int  # all of them are whole numbers
    least: tuple[float, float] | None
    greatest: tuple[float, float] | None

    @classmethod
    def of(cls, rows: Iterable[tuple[Any, ...]]) -> _Sums:
        found = [(n, value) for _, _, n, value in rows]
        return cls(len(found), sum(n for n, _ in found), round(sum(v for _, v in found)), *_extremes(found, found))

    @classmethod
    def of_thinned(cls, rows: list[Row], field: str) -> _Sums:
        n = sum(r["n"] * r["n_count"] for r in rows)
        value = sum(r[field] * r[f"{field}_count"] for r in rows)
        extremes = _extremes(
            [(r["n_min"], r[f"{field}_min"]) for r in rows], [(r["n_max"], r[f"{field}_max"]) for r in rows]
        )
        return cls(sum(r["thinned"] for r in rows), round(n), round(value), *extremes)


def _extremes(low: list[Any], high: list[Any]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    if not low:
        return None, None
    return (min(n for n, _ in low), min(v for _, v in low)), (max(n for n, _ in high), max(v for _, v in high))


def _told(raw: str) -> tuple[str, int]:
    """Key and time of a reading that was refused, from what is kept of it."""
    if raw.startswith("{"):
        reading = orjson.loads(raw)
        return reading["id"], reading["ts"]
    if " at " in raw:  # dated ahead
        name, _, time = raw.partition(" at ")
        return name, round(datetime.fromisoformat(time[:26] + "+00:00").timestamp() * 1000)
    name, ts, *_ = raw.split(",")
    return name, int(ts)
