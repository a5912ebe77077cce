"""A file's readings, each once: from the start, from any position, while it grows, over rotation."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.component import Inbox, Payload, SourceContext
from pipeline.frame import KeyTable
from pipeline.sources import file
from pipeline.sources.file import File, FileSettings
from tests.waiting import eventually


class Taken(Inbox):
    """An inbox without end that keeps what it is given."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.ended = False

    def offer(self, payload: Payload) -> bool:
        self.payloads.append(payload)
        return True

    async def put(self, payload: Payload) -> None:
        self.offer(payload)

    async def taken(self) -> None:
        pass

    def end(self) -> None:
        self.ended = True


def source(folder: Path, **settings: Any) -> File:
    context = SourceContext("in", KeyTable(), folder=folder)
    made = File(
        FileSettings(**({"path": "in.ndjson", "key": "id", "time": "ts", "fields": {"value": "int"}} | settings)),
        context,
    )
    assert context.problems == []
    return made


def lines(*values: int) -> str:
    return "".join(json.dumps({"id": "a", "ts": 1, "value": v}) + "\n" for v in values)


def values(made: File, payloads: list[Payload]) -> list[int]:
    found: list[int] = made.decode(payloads).columns["value"].tolist() if payloads else []
    return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "CHUNK", 100)
    monkeypatch.setattr(file, "MAX_LINE", 400)
    monkeypatch.setattr(file, "POLL_S", 0.005)


async def test_to_the_end_from_any_position(tmp_path: Path) -> None:
    """A restart behind any payload gives exactly the rest; the last line counts without a line end, too."""
    (tmp_path / "in.ndjson").write_text(lines(*range(20)).rstrip("\n"))
    made, inbox = source(tmp_path), Taken()
    await made.run(inbox, None)
    assert inbox.ended
    assert values(made, inbox.payloads) == list(range(20))
    assert len(inbox.payloads) > 5
    for i, payload in enumerate(inbox.payloads):
        rest = Taken()
        await made.run(rest, payload.position)
        assert values(made, inbox.payloads[: i + 1]) + values(made, rest.payloads) == list(range(20))
    assert made.progress() == (os.path.getsize(tmp_path / "in.ndjson"),) * 2


async def test_what_lies_between_two_positions_can_be_read_again(tmp_path: Path) -> None:
    """Cut the same: the journal holds only the range."""
    (tmp_path / "in.ndjson").write_text(lines(*range(20)))
    made, inbox = source(tmp_path), Taken()
    await made.run(inbox, None)
    positions = [None, *(p.position for p in inbox.payloads)]
    for i in range(len(positions)):
        for j in range(i + 1, len(positions)):
            again = made.reread(positions[i], positions[j])
            assert [p.data for p in again] == [p.data for p in inbox.payloads[i:j]]


async def test_a_pattern_in_the_order_of_names(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1), ("c", 3)):
        (tmp_path / f"{name}.ndjson").write_text(lines(value))
    made, inbox = source(tmp_path, path="*.ndjson"), Taken()
    await made.run(inbox, None)
    assert values(made, inbox.payloads) == [1, 2, 3]
    rest = Taken()
    await made.run(rest, inbox.payloads[0].position)
    assert values(made, rest.payloads) == [2, 3]


async def test_a_csv_has_its_header_before_every_chunk(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,ts,value\n" + "".join(f"a,1,{v}\n" for v in range(60)))
    made, inbox = source(tmp_path, path="in.csv", format="csv"), Taken()
    await made.run(inbox, None)
    assert len(inbox.payloads) > 3
    assert values(made, inbox.payloads) == list(range(60))


async def test_a_line_without_end_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(lines(1) + "x" * 3000 + "\n" + lines(2))
    made, inbox = source(tmp_path), Taken()
    await made.run(inbox, None)
    assert values(made, inbox.payloads) == [1, 2]
    assert max(len(p.data) for p in inbox.payloads) <= 600


async def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source in: there is no file .*in\.ndjson"):
        await source(tmp_path).run(Taken(), None)


async def test_following(tmp_path: Path) -> None:
    """Appended lines, half lines, rotation and truncation; a restart goes on behind what was durable."""
    path = tmp_path / "in.ndjson"
    path.write_text(lines(1, 2) + '{"id": "a",')
    made, inbox = source(tmp_path, follow=True), Taken()
    task = asyncio.create_task(made.run(inbox, None))

    async def until(*wanted: int) -> None:
        await eventually(lambda: values(made, inbox.payloads) == list(wanted), lambda: values(made, inbox.payloads))

    await until(1, 2)
    with path.open("a") as out:
        out.write('"ts": 1, "value": 3}\n')
    await until(1, 2, 3)
    path.rename(tmp_path / "old")
    path.write_text(lines(4))
    await until(1, 2, 3, 4)
    path.write_text("")
    await asyncio.sleep(0.05)
    path.write_text(lines(5))
    await until(1, 2, 3, 4, 5)
    task.cancel()
    with path.open("a") as out:
        out.write(lines(6))
    position = inbox.payloads[-1].position
    inbox.payloads.clear()
    task = asyncio.create_task(made.run(inbox, position))
    await until(6)
    task.cancel()


async def test_a_followed_csv_has_its_header_in_every_chunk(tmp_path: Path) -> None:
    """Also after a restart in its middle, and after a rotation."""
    path = tmp_path / "in.csv"
    path.write_text("id,ts,value\n" + "".join(f"a,1,{v}\n" for v in range(30)))
    made, inbox = source(tmp_path, path="in.csv", format="csv", follow=True), Taken()

    async def until(n: int) -> None:
        await eventually(lambda: len(values(made, inbox.payloads)) >= n, lambda: values(made, inbox.payloads))
        assert values(made, inbox.payloads) == list(range(n))

    task = asyncio.create_task(made.run(inbox, None))
    await until(30)
    task.cancel()
    with path.open("a") as out:
        out.write("".join(f"a,1,{v}\n" for v in range(30, 60)))
    task = asyncio.create_task(made.run(inbox, inbox.payloads[-1].position))
    await until(60)
    path.rename(tmp_path / "in.csv.1")
    path.write_text("id,ts,value\na,1,60\n")
    await until(61)
    task.cancel()


class Log:
    """A file that a program writes to and that is rotated, and the source that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "in.ndjson"
        self.inbox = Taken()
        self.written: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self.made = source(folder, follow=True)

    def write(self, n: int = 1) -> None:
        new = range(len(self.written), len(self.written) + n)
        self.written += new
        with self.path.open("a") as out:
            out.write(lines(*new))

    def rotate(self) -> None:
        """As logrotate does: .1 becomes .2, and the file .1."""
        for i in range(99, 0, -1):
            if (older := self.folder / f"in.ndjson.{i}").exists():
                older.rename(self.folder / f"in.ndjson.{i + 1}")
        if self.path.exists():
            self.path.rename(self.folder / "in.ndjson.1")

    def copy_and_truncate(self, name: str) -> None:
        (self.folder / name).write_bytes(self.path.read_bytes())
        self.path.write_text("")

    def start(self) -> None:
        position = self.inbox.payloads[-1].position if self.inbox.payloads else None
        self.task = asyncio.create_task(self.made.run(self.inbox, position))

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])

    async def all_read(self) -> None:
        def read() -> list[int]:
            return values(self.made, self.inbox.payloads)

        await eventually(lambda: len(read()) >= len(self.written), lambda: (read(), self.written))
        await asyncio.sleep(0.02)
        assert read() == self.written


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    made = Log(tmp_path)
    made.write(5)
    made.start()
    await made.all_read()
    yield made
    if made.task is not None:
        await made.stop()


async def test_what_was_rotated_away_while_it_was_down_is_read_first(log: Log) -> None:
    """Each line once, in order: of the file that it had read, of one that came and went meanwhile, of the new one."""
    await log.stop()
    for _ in range(3):
        log.write(4)
        log.rotate()
    log.write(2)
    log.start()
    await log.all_read()


async def test_who_writes_may_keep_the_old_file_open_for_a_while(log: Log) -> None:
    """Lines that come to it after it was renamed, even once there is a new and empty one, are not lost."""
    with log.path.open("a") as still_open:
        log.rotate()
        await asyncio.sleep(0.03)
        log.path.write_text("")
        still_open.write(lines(5, 6))
        log.written += [5, 6]
    await log.all_read()
    log.write(3)
    await log.all_read()


@pytest.mark.parametrize("down", [True, False])
async def test_the_copy_of_a_truncated_file_is_read_to_its_end(log: Log, down: bool) -> None:
    """Also where the file has grown beyond its old size since, so that its size says nothing."""
    if down:
        await log.stop()
    log.write(2)
    log.copy_and_truncate("in-20260131.ndjson")
    log.write(40)
    if down:
        log.start()
    await log.all_read()


async def test_other_files_beside_it_are_left_alone(log: Log) -> None:
    await log.stop()
    for name in ("in.ndjson.bak", "in2.ndjson", "other.ndjson.1", "in-errors.ndjson"):
        (log.folder / name).write_text(lines(77))
    log.rotate()
    log.write(1)
    log.start()
    await log.all_read()


async def test_what_is_gone_is_told(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """Deleted or packed while it was down: it goes on with the new file, from its beginning."""
    await log.stop()
    log.path.unlink()
    log.written.clear()
    log.inbox.payloads[:-1] = []
    (log.folder / "in.ndjson").write_text(lines(*range(100, 160)))
    log.start()
    await eventually(
        lambda: values(log.made, log.inbox.payloads)[-60:] == list(range(100, 160)),
        lambda: values(log.made, log.inbox.payloads),
    )
    assert "is gone, and what came after in it" in caplog.text


@pytest.mark.parametrize("seed", range(20))
async def test_each_line_once_whatever_happens_to_the_file(log: Log, seed: int) -> None:
    """Writing, rotation and restarts in any order."""
    chance = random.Random(seed)
    for _ in range(25):
        match chance.randrange(5):
            case 0:
                log.rotate()
            case 1:
                await log.stop()
                for _ in range(chance.randrange(3)):
                    log.write(chance.randrange(4))
                    log.rotate()
                log.start()
            case 2:
                await asyncio.sleep(chance.random() * 0.02)
            case _:
                log.write(chance.randrange(1, 5))
    await log.all_read()


async def test_the_pace_of_the_event_times(tmp_path: Path) -> None:
    """Line by line, in order; how long it took is not asserted."""
    text = "".join(json.dumps({"id": "a", "ts": t, "value": t}) + "\n" for t in range(0, 100, 10))
    (tmp_path / "in.ndjson").write_text(text)
    made, inbox = source(tmp_path, speed=10.0, time_unit="ms"), Taken()
    await made.run(inbox, None)
    assert values(made, inbox.payloads) == list(range(0, 100, 10))
    assert len(inbox.payloads) == 10
    rest = Taken()
    await made.run(rest, inbox.payloads[3].position)
    assert values(made, rest.payloads) == list(range(40, 100, 10))
