"""A source stays connected: pauses grow and are not alike, and /health says what is wrong for as long as it is."""

from __future__ import annotations

import logging
import random

import pytest

from pipeline.component import Settings, Source, SourceContext
from pipeline.frame import KeyTable
from pipeline.reconnect import Connection, pause


class Enough(Exception):
    """Ends the loop of a test."""


class Peer:
    """What each session does, one after the other; then `Enough`."""

    def __init__(self, *ends: Exception | None, up: tuple[int, ...] = ()) -> None:
        self.ends = list(ends)
        self.up = up
        self.slept: list[float] = []
        self.troubles: list[str] = []
        self.source = Source(Settings(), SourceContext("meters", KeyTable()))
        self.connection = Connection(
            self.source, "tcp://there", (LookupError,), random_=random.Random(1), sleep=self.sleep
        )
        self.sessions = 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.troubles.append(self.source.trouble)

    async def session(self) -> None:
        if self.sessions == len(self.ends):
            raise Enough
        end = self.ends[self.sessions]
        self.sessions += 1
        if self.sessions in self.up:
            self.connection.up()
        if end is not None:
            raise end

    async def run(self) -> None:
        with pytest.raises(Enough):
            await self.connection.keep(self.session)


def test_pauses_double_up_to_a_minute_and_differ() -> None:
    chance = random.Random(1)
    for failures, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (8, 60.0), (1_000, 60.0)):
        pauses = [pause(failures, chance) for _ in range(200)]
        assert longest / 10 <= min(pauses) < longest / 4
        assert longest * 3 / 4 < max(pauses) <= longest


async def test_a_lost_connection_is_told_until_it_is_up_again() -> None:
    peer = Peer(OSError("refused"), LookupError("no such topic"), None, up=(3,))
    await peer.run()
    assert peer.troubles == [
        "tcp://there: refused",
        "tcp://there: no such topic",
        "tcp://there: the connection was closed",
    ]


async def test_once_up_the_pauses_begin_anew() -> None:
    peer = Peer(*[OSError("refused")] * 7, None, up=(8,))
    await peer.run()
    assert max(peer.slept[:7]) > 3.0
    assert peer.slept[7] <= 0.5


async def test_up_clears_what_was_told() -> None:
    peer = Peer(OSError("refused"))
    await peer.run()
    peer.connection.up()
    assert peer.source.trouble == ""


async def test_the_same_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="headwater")
    await Peer(*[OSError("refused")] * 5, OSError("no route")).run()
    assert [record.getMessage() for record in caplog.records] == [
        "meters: tcp://there: refused; trying again",
        "meters: tcp://there: no route; trying again",
    ]


async def test_another_error_is_a_fault_and_goes_on_up() -> None:
    peer = Peer(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await peer.connection.keep(peer.session)
