"""Each connector against its real peer: which checks of the contract it passes, messages a second, µs of CPU a message.

    python -m benchmarks.connectors [sources/socket sinks/cloud …] [--write]

Without names: all. `--write` puts their rows into docs/connectors.md and leaves the others as they stand there.

A source: the peer gives so many readings as fast as it can; a message counts when its commit can be seen. A sink: rows are
posted, and count when the peer has them. The pipeline is the contract's, `durability = "process"`, with a history beside; the CPU
is that of the whole `headwater run` process. What the peer can give may be less than what the connector could take.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.connectors import contract
from tests.connectors.rig import Rig
from tests.connectors.world import SinkWorld, SourceWorld, names, rig_class, world

FILE = Path(__file__).resolve().parent.parent / "docs" / "connectors.md"
SOURCE_READINGS = 50_000
SINK_ROWS = 10_000
POSTED = 500  # rows in a request
ASKED_S = 4.0  # how long a source that asks for values is given new ones

INTRO = """\
# Connectors
Every connector is held to one contract by `tests/connectors/`: a real `headwater run` process, and the real peer that the
table names. This page is generated: `python -m benchmarks.connectors --write`.

*Promise*: what holds for a message when this process is killed. "Exactly once" is said of a sink whose peer makes use of what it
is given for that: a key that stays the same, a row that replaces itself.
*messages/s* and *µs CPU* are of the whole durable pipeline (decode, commit, history; of a sink: HTTP in, commit, outbox, peer),
on a shared two-core virtual machine on which the peer runs, too: `benchmarks/connectors.py` says how they are taken. Of a
source that asks for values they say what one reading costs at the rate that is asked for. A rate can be the peer's: paho, which
writes to the broker for `mqtt`, gives no more; docs/mqtt.md has what the source takes.
"""
HEADER = (
    "| connector | peer | promise | checks | at the limit | messages/s | µs CPU |\n"
    "| --- | --- | --- | --- | --- | ---: | ---: |\n"
)


class Cost(NamedTuple):
    per_second: float
    cpu_us: float


async def source_cost(w: SourceWorld) -> Cost:
    if w.rig.promise == "newest value":
        before, cpu, start = len(await w.have()), w.device.cpu_s(), time.monotonic()
        while time.monotonic() < start + ASKED_S:
            await w.rig.send(w.some(1))
        used, took = w.device.cpu_s() - cpu, time.monotonic() - start
        return _cost(max(1, len(await w.have()) - before), took, used)
    await w.come(await w.send(10))
    numbers = w.some(SOURCE_READINGS)
    cpu, start = w.device.cpu_s(), time.monotonic()
    sending = asyncio.create_task(w.rig.send(numbers))
    while await w.newest() < numbers[-1]:
        await asyncio.sleep(0.1)  # asking costs the device something, too
    cost = _cost(len(numbers), time.monotonic() - start, w.device.cpu_s() - cpu)
    await sending
    return cost


async def sink_cost(w: SinkWorld) -> Cost:
    await w.post(10)
    await w.come(w.numbers)
    cpu, start = w.device.cpu_s(), time.monotonic()
    for _ in range(SINK_ROWS // POSTED):
        while not await w.post(POSTED):
            await asyncio.sleep(0.02)
    end = start + 120
    while len(set(await w.rig.received())) < len(w.numbers) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return _cost(SINK_ROWS, time.monotonic() - start, w.device.cpu_s() - cpu)


def _cost(count: int, took: float, used: float) -> Cost:
    return Cost(count / took, used / count * 1e6)


async def row(kind: str, name: str) -> str:
    """The row of a connector: the contract is held, then it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        await contract.hold(kind, name, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        async with world(kind, name, Path(folder), gate=False, rows=500) as w:
            cost = await (source_cost(w) if kind == "sources" else sink_cost(w))
    rig: Rig = rig_class(kind, name)(Path(), 0)
    cells = (
        f"`{name}`",
        f"{rig.peer} {rig.version()}",
        rig.promise,
        ", ".join(contract.of(kind, name)),
        rig.limit,
        f"{_round(cost.per_second):,.0f}" if cost.per_second >= 10 else f"{cost.per_second:.1f}",
        f"{_round(cost.cpu_us):,.0f}" if cost.cpu_us >= 10 else f"{cost.cpu_us:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _round(value: float) -> float:
    """To two digits: more would be this day's."""
    return float(f"{value:.2g}")


# --- the page ---------------------------------------------------------------------------------------------------------


def rows_of(page: str) -> dict[tuple[str, str], str]:
    """(kind, name) -> its row."""
    found = {}
    for kind in contract.CHECKS:
        _, _, section = page.partition(f"\n## {kind.capitalize()}\n")
        for line in section.partition("\n## ")[0].splitlines():
            if named := re.match(r"\| `(\w+)` \|", line):
                found[kind, named[1]] = line
    return found


def page(rows: dict[tuple[str, str], str]) -> str:
    text = INTRO
    for kind, checks in contract.CHECKS.items():
        text += f"\n## {kind.capitalize()}\n{HEADER}"
        text += "".join(f"{line}\n" for (of, _), line in sorted(rows.items()) if of == kind)
        text += "\n| check | what must hold |\n| --- | --- |\n"
        text += "".join(f"| {check} | {' '.join((run.__doc__ or '').split())} |\n" for check, run in checks.items())
        text += "".join(_without(kind, name) for of, name in sorted(rows) if of == kind and name in names(kind))
        elsewhere = sorted(contract.OTHERWISE[kind].items())
        text += "\nNot in the table: " + "; ".join(f"`{name}` ({why})" for name, why in elsewhere) + ".\n"
    return text


def _without(kind: str, name: str) -> str:
    """What a connector is not asked, and why."""
    told = "; ".join(f"{check} ({why})" for check, why in rig_class(kind, name).without.items())
    return f"\n`{name}` is not asked: {told}.\n" if told else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connectors", nargs="*", metavar="KIND/NAME")
    parser.add_argument("--write", action="store_true", help="into docs/connectors.md")
    options = parser.parse_args()
    everything = [f"{kind}/{name}" for kind in contract.CHECKS for name in names(kind)]
    chosen = options.connectors or everything
    if unknown := set(chosen) - set(everything):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(everything)}")
    rows = rows_of(FILE.read_text()) if FILE.exists() else {}
    for connector in chosen:
        kind, _, name = connector.partition("/")
        if rig_class(kind, name)(Path(), 0).version() is None:
            print(f"{connector}: its peer is not here")
            continue
        rows[kind, name] = asyncio.run(row(kind, name))
        print(rows[kind, name])
    if options.write:
        FILE.write_text(page(rows))


if __name__ == "__main__":
    main()
