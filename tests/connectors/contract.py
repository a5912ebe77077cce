"""What every connector must do, each against its real peer. A check is a function here; its docstring is the promise.

    python -m pytest tests/connectors -k mqtt

The checks of a connector run one after the other in the life of one process, in this order.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.connectors.rig import WRONG
from tests.connectors.world import SinkWorld, SourceWorld, rig_class, sequence, world
from tests.waiting import eventually

KILLS = int(os.environ.get("KILLS", "1"))
PAD = 4_000
FLOOD = 5_000  # rows of PAD bytes: more than the inbox, the outbox and the buffers of two sockets hold
GROWS_MB = 60.0  # at most, while a flood is held back: the inbox, one step, a batch on its way

Check = Callable[[Any], Awaitable[None]]


# --- sources ----------------------------------------------------------------------------------------------------------


async def source_delivers(w: SourceWorld) -> None:
    """What the peer gives comes out."""
    for _ in range(3):  # one by one for those who ask for the newest value
        await w.come(await w.send(1))
    if w.rig.promise != "newest value":
        await w.come(await w.send(100))


async def source_survives_garbage(w: SourceWorld) -> None:
    """What is no reading is a dead letter; the readings before and after it come, and the source goes on."""
    before = len(await w.dead("given"))
    good = await w.send(1)
    bad = await w.rig.garbage()

    async def buried() -> bool:
        return len(await w.dead("given")) >= before + bad

    if w.rig.promise == "newest value":  # the next one takes its place, whether it was seen or not
        await w.until(buried, f"{bad} dead letters")
    good += await w.send(1)
    await w.come(good)
    await w.until(buried, f"{bad} dead letters")
    assert len(await w.dead("given")) == before + bad


async def source_outlives_its_peer(w: SourceWorld) -> None:
    """While the peer is away, /health says so; when it is there again, readings come again and /health is clean."""
    await w.rig.stop()
    if w.proxy is not None:

        async def told() -> bool:
            return any(reason.startswith("given: ") for reason in await w.reasons())

        await w.until(told, "/health says that the peer is away")
    await w.rig.start()
    await _come_again(w)

    async def well() -> bool:
        return not await w.reasons()

    await w.until(well, "/health has no reasons")


async def source_finds_a_half_open_connection(w: SourceWorld) -> None:
    """A connection that is open and over which nothing comes is given up; readings come by a new one."""
    assert w.proxy is not None
    await eventually(w.proxy.freeze)  # one that is just being made counts, too
    await _come_again(w)


async def source_is_killed(w: SourceWorld) -> None:
    """kill -9 in the middle: what could be seen is there after the restart; so is what the promise holds for, as often as it
    says."""
    for _ in range(KILLS):
        going = asyncio.create_task(_keep_sending(w))
        await asyncio.sleep(0.3)
        shown = await w.have()
        await w.device.end(signal.SIGKILL)
        await w.device.start(w.http)
        await asyncio.sleep(0.1)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        await _come_again(w)
        assert set(shown) <= set(await w.have())
    have = await w.have()
    if w.rig.promise in ("at least once", "exactly once"):
        await w.come(w.numbers)
        have = await w.have()
    if w.rig.promise in ("at most once", "exactly once"):
        assert list(sequence(have)) == []


async def source_is_flooded(w: SourceWorld) -> None:
    """While the engine is held back, memory is bounded and the source pushes back; nothing that counts is lost."""
    w.gate.open.clear()
    before = w.device.rss()
    sending = asyncio.create_task(w.rig.send(w.some(w.rig.flood), PAD))
    most = 0.0
    for _ in range(10):
        await asyncio.sleep(0.1)
        most = max(most, w.device.rss() - before)
    assert most < GROWS_MB, f"{most} MB more"
    if w.rig.waits is not None:
        assert sending.done() != w.rig.waits, sending
    w.gate.open.set()
    counted = await sending
    w.numbers += counted
    await w.come(counted)


async def source_tells_wrong_credentials(w: SourceWorld) -> None:
    """The process goes on, /health says why nothing comes, and the credentials are shown nowhere."""

    async def told() -> bool:
        return any(reason.startswith("given: ") for reason in await w.reasons())

    await w.until(told, "/health says that the peer refuses us")
    assert WRONG not in await w.shown()
    assert await w.have() == []


async def _come_again(w: SourceWorld) -> None:
    """Readings that are sent come, perhaps not the first ones: where no promise holds for these."""
    if w.rig.promise in ("at least once", "exactly once"):
        await w.come(await w.send(5))
        return

    async def one() -> bool:
        (number,) = w.some(1)
        await w.rig.send([number])
        for _ in range(6):
            if await w.newest() >= number:
                return True
            await asyncio.sleep(0.05)
        return False

    await w.until(one, "readings come again")


async def _keep_sending(w: SourceWorld) -> None:
    while True:
        await w.send(5)
        await asyncio.sleep(0.01)


# --- sinks ------------------------------------------------------------------------------------------------------------


async def sink_delivers(w: SinkWorld) -> None:
    """Each row comes to the peer."""
    assert await w.post(1)
    assert await w.post(100)
    have = await w.come(w.numbers)
    # An answer that is late has a batch sent again.
    assert sorted(set(have) if w.rig.promise == "at least once" else have) == w.numbers


async def sink_goes_on_behind_a_refusal(w: SinkWorld) -> None:
    """A row that the peer refuses for good is a dead letter; those before and after it are delivered."""
    good = list(w.numbers)
    w.rig.refuse(w.next)
    assert await w.post(1)
    bad = w.numbers.pop()

    async def buried() -> bool:
        return bool(await w.dead("out"))

    await w.until(buried, "a dead letter")
    assert await w.post(5)
    good += w.numbers[-5:]
    assert bad not in await w.come(good)


async def sink_outlives_its_peer(w: SinkWorld) -> None:
    """While the peer is away rows wait, and /api/delivery says why; when it is there again they come."""
    await w.rig.stop()
    assert await w.post(20)

    async def told() -> Any:
        return (await w.delivery())["last_error"]

    await w.until(told, "/api/delivery says what is wrong")
    await w.rig.start()
    await w.come(w.numbers)


async def sink_finds_a_half_open_connection(w: SinkWorld) -> None:
    """A connection over which no answer comes is given up, and the rows are sent by a new one."""
    assert w.proxy is not None
    w.proxy.freeze()
    assert await w.post(20)
    await w.come(w.numbers)


async def sink_is_killed(w: SinkWorld) -> None:
    """kill -9 in the middle: every row that was acknowledged comes to the peer, as often as the promise says."""

    async def keep_posting() -> None:
        while True:
            await w.post(5)
            await asyncio.sleep(0.01)

    for _ in range(KILLS):
        going = asyncio.create_task(keep_posting())
        await asyncio.sleep(0.3)
        await w.device.end(signal.SIGKILL)
        await w.device.start(w.http)
        await asyncio.sleep(0.1)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
    if w.rig.promise == "at most once":
        assert await w.post(5)
        have = await w.come(w.numbers[-5:])
    else:
        have = await w.come(w.numbers)
    if w.rig.promise != "at least once":
        assert list(sequence(have)) == []


async def sink_is_flooded(w: SinkWorld) -> None:
    """While the peer is away and the buffer is full, memory is bounded and the input is held back; nothing is lost."""
    await w.rig.stop()
    before = w.device.rss()
    turned_away = 0
    for _ in range(FLOOD // 100):
        turned_away += not await w.post(100, PAD)
        if turned_away > 20:
            break
    assert turned_away > 20
    assert w.device.rss() - before < GROWS_MB
    await w.rig.start()
    await w.come(w.numbers)


async def sink_tells_wrong_credentials(w: SinkWorld) -> None:
    """The process goes on, /api/delivery or a dead letter says why, and the credentials are shown nowhere."""
    assert await w.post(1)

    async def told() -> Any:
        return (await w.delivery())["last_error"]

    await w.until(told, "/api/delivery says that the peer refuses us")
    assert WRONG not in await w.shown()
    assert await w.rig.received() == []


# --- all of them ------------------------------------------------------------------------------------------------------

CHECKS: dict[str, dict[str, Check]] = {
    "sources": {
        "deliver": source_delivers,
        "garbage": source_survives_garbage,
        "restart of the peer": source_outlives_its_peer,
        "half-open": source_finds_a_half_open_connection,
        "kill -9": source_is_killed,
        "flood": source_is_flooded,
        "credentials": source_tells_wrong_credentials,
    },
    "sinks": {
        "deliver": sink_delivers,
        "refusal": sink_goes_on_behind_a_refusal,
        "restart of the peer": sink_outlives_its_peer,
        "half-open": sink_finds_a_half_open_connection,
        "kill -9": sink_is_killed,
        "flood": sink_is_flooded,
        "credentials": sink_tells_wrong_credentials,
    },
}

# What has no rig: why, and where it is held to what it promises instead.
OTHERWISE = {
    "sources": {
        "camera": "films, MJPEG of ffmpeg, RTSP of GStreamer: tests/pipeline/sources/test_camera.py, tests/test_worlds.py",
        "file": "no peer: tests/test_kill_file.py",
        "host": "no peer: tests/pipeline/sources/test_host.py",
    },
    "sinks": {
        "file": "no peer: tests/test_kill.py",
        "modbus": "it sets the newest value, not each: tests/sinks/test_modbus.py",
        "query_server": "no peer: tests/test_kill.py, tests/test_live_kill.py",
        "snapshot": "no peer: tests/test_worlds.py",
    },
}


def of(kind: str, name: str) -> dict[str, Check]:
    """The checks that make sense for a connector."""
    without = rig_class(kind, name).without
    if unknown := without.keys() - CHECKS[kind].keys():
        raise ValueError(f"{name}: there is no check {', '.join(unknown)}; there are {', '.join(CHECKS[kind])}")
    return {check: run for check, run in CHECKS[kind].items() if check not in without}


async def hold(kind: str, name: str, folder: Path) -> list[str]:
    """All checks of a connector; which they were."""
    checks = of(kind, name)
    async with world(kind, name, folder) as w:
        for check, run in checks.items():
            if check != "credentials":
                await _named(check, run, w)
        assert await w.device.end() == 0
    if "credentials" in checks:
        apart = folder / "credentials"
        apart.mkdir()
        async with world(kind, name, apart, wrong=True) as w:
            await _named("credentials", checks["credentials"], w)
            assert await w.device.end() == 0
    return list(checks)


async def _named(check: str, run: Check, w: Any) -> None:
    try:
        await run(w)
    except Exception as error:
        error.add_note(f"in the check: {check}")
        raise
