"""The notify sink: apprise to a real HTTP server and a real (small) mail server."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pipeline.clock import VirtualClock
from pipeline.component import SinkContext
from pipeline.config import loads
from pipeline.delivering import BatchSettings
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.graph import Graph
from pipeline.masked import masked
from pipeline.quantity import Duration, Secret
from sinks.notify import Notify, NotifySettings
from tests.sinks.rig import Enqueued, rig
from tests.waiting import eventually

# A library that one of apprise's plugins imports is behind the times.

ALERTS = Schema("id", {"state": Field("string"), "value": Field("float", True), "message": Field("string")}, "alerts")
SCHEMAS = {"hot": ALERTS, "readings": Schema("id", {"value": Field("float", True)})}
KEYS = ["a", "b"]


class Chat:
    """Takes messages of json://; answers with the next of `answers`, then 200."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.port = 0

    async def take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.messages.append(json.loads(await request.read()))
        return web.Response(status=status, text="hidden-token is not known")

    def url(self, path: str = "hidden-token") -> Secret:
        return Secret(f"json://user:hidden-word@127.0.0.1:{self.port}/{path}?+X-Key=hidden-key")


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    made = Chat()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@asynccontextmanager
async def mail_server() -> AsyncIterator[tuple[int, list[str]]]:
    """Just enough of SMTP (RFC 5321) to be given a mail: its port, and the mails."""
    mails: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        while line := await reader.readline():
            command = line.split()[0].upper().decode()
            if command == "DATA":
                writer.write(b"354 go on\r\n")
                mails.append((await reader.readuntil(b"\r\n.\r\n"))[:-3].decode())
            if command == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            writer.write(b"250 fine\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], mails


def sink(*urls: Secret, **more: Any) -> Notify:
    context = SinkContext("people", SCHEMAS, KeyTable(KEYS))
    given = {"batch": BatchSettings(rows=100, wait=Duration(0)), **more}
    made = Notify(NotifySettings(urls=urls, **given), context)
    assert context.problems == []
    return made


def alerts(*messages: str, state: str = "firing") -> Frame:
    n = np.arange(len(messages), dtype=np.int64)
    columns = {
        "state": column("string", [state] * len(n)),
        "value": column("float", [81.5] * len(n)),
        "message": column("string", messages),
    }
    return Frame(n * SECOND, (n % 2).astype(np.int32), n, columns, NO_PROGRESS)


async def test_what_comes_together_is_one_message(tmp_path: Path, chat: Chat) -> None:
    """With a line for each alert; one that is over says so; a message holds no more lines than it was given."""
    async with rig(tmp_path, sink(chat.url(), title="Greenhouse: {count}")) as r:
        await r.put("hot", alerts("a is hot", "b is\nhot"))
        await r.until(sent=2)
        await r.put("hot", alerts("a is fine", state="cleared"))
        await r.until(sent=3)
    assert [(m["title"], m["message"]) for m in chat.messages] == [
        ("Greenhouse: 2", "a is hot\nb is hot"),
        ("Greenhouse: 1", "over: a is fine"),
    ]


async def test_a_storm_is_told_in_short(tmp_path: Path, chat: Chat) -> None:
    async with rig(tmp_path, sink(chat.url(), lines=3)) as r:
        await r.put("hot", alerts(*(f"m{i}" for i in range(50))))
        await r.until(sent=50)
    assert [m["message"] for m in chat.messages] == ["m0\nm1\nm2\nand 47 more"]


async def test_a_line_may_have_another_form(tmp_path: Path, chat: Chat) -> None:
    """Rows that are no alerts tell all their fields, unless a template says otherwise."""
    for number, line in enumerate([None, "{id}: {value:.0f} {message}"]):
        async with rig(tmp_path / str(number), sink(chat.url(), line=line)) as r:
            n = np.zeros(1, np.int64)
            frame = Frame(n, n.astype(np.int32), n, {"value": column("float", [1.5])}, NO_PROGRESS)
            await r.put("readings", frame)
            await r.until(sent=1)
    assert [m["message"] for m in chat.messages] == [
        "stream readings, id a, time 1970-01-01T00:00:00.000Z, value 1.5",
        "a: 2 missing",
    ]


def test_that_it_is_over_may_be_left_out() -> None:
    """Of alerts only."""
    made, writes = sink(Secret("json://localhost"), cleared=False), Enqueued()
    made.write("hot", alerts("a", "b", state="cleared"), writes)
    made.write("hot", alerts("a", state="firing"), writes)
    n = np.zeros(1, np.int64)
    made.write("readings", Frame(n, n.astype(np.int32), n, {"value": column("float", [1.0])}, NO_PROGRESS), writes)
    assert writes.rows == [("hot", 1, True), ("readings", 1, False)]


async def test_beyond_its_rate_messages_wait_and_are_told_together(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost: what comes meanwhile is in the next one."""
    made = sink(chat.url(), per_hour=2)
    async with rig(tmp_path, made) as r:
        for i in range(2):
            await r.put("hot", alerts(f"m{i}"))
            await r.until(sent=i + 1)
        for i in range(2, 6):
            await r.put("hot", alerts(f"m{i}"))
        await asyncio.sleep(0.3)
        assert len(chat.messages) == 2
        assert (await r.status())["waiting"] == 4
    monkeypatch.setattr("sinks.notify.HOUR_S", 0.0)
    async with rig(tmp_path, made) as r:
        await r.until(sent=6, waiting=0)
    assert "\n".join(m["message"] for m in chat.messages) == "m0\nm1\nm2\nm3\nm4\nm5"
    assert len(chat.messages) <= 4  # the one that waited, and all that came meanwhile


async def test_who_was_told_is_not_told_again(tmp_path: Path, chat: Chat) -> None:
    """Because another service failed; and the failure shows nothing of an address."""
    chat.answers = [500]
    async with rig(tmp_path, sink(chat.url("hidden-one"), Secret("json://127.0.0.1:1/hidden-two"))) as r:
        await r.put("hot", alerts("m"))
        await r.until(state="retrying")

        async def only_the_other() -> str:
            error: str = (await r.status())["last_error"]
            return error if chat.messages and "urls.0" not in error else ""

        told = await eventually(only_the_other)
        await asyncio.sleep(0.1)
    assert [m["message"] for m in chat.messages] == ["m"]
    assert told.startswith("JSON (urls.1): ")
    assert "onnection" in told
    assert "127.0.0.1" not in told  # of tgram:// and others that place holds a token


@pytest.mark.parametrize("status", [401, 500])
async def test_no_address_is_shown(
    tmp_path: Path, chat: Chat, status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in /api/delivery, not in the log, not on the terminal."""
    chat.answers = [status] * 1000
    async with rig(tmp_path, sink(chat.url())) as r:
        await r.put("hot", alerts("m"))
        await r.until(state="retrying")
        told = str(await r.status())
    assert not logging.getLogger("apprise").propagate
    assert f"{status}" in told
    assert "hidden" not in told + caplog.text + "".join(capfd.readouterr())
    assert "hidden" not in repr(r.sink.__dict__["settings"])


async def test_a_mail_arrives(tmp_path: Path) -> None:
    """With the text of the alerts, whatever is in it."""
    async with mail_server() as (port, mails):
        url = Secret(f"mailto://127.0.0.1:{port}?mode=insecure&from=device@example.org&to=me@example.org")
        async with rig(tmp_path, sink(url, title="{count} alerts")) as r:
            await r.put("hot", alerts("<b>é & a</b>", "two"))
            await r.until(sent=2)
    (text,) = mails
    mail = email.message_from_string(text, policy=email.policy.default)
    assert (mail["To"], mail["Subject"]) == ("me@example.org", "2 alerts")
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().split() == ["<b>é", "&", "a</b>", "two"]


def test_the_file_as_it_is_kept_makes_the_same_graph(tmp_path: Path) -> None:
    """Without its secrets: else a changed file could not take over the state of the one before."""
    text = """
        [pipeline]
        name = "x"
        [server]
        listen = "127.0.0.1:0"
        [sources.given]
        type = "http"
        fields = { value = "float" }
        [sinks.people]
        type = "notify"
        input = "given"
        urls = ["json://me:hidden@localhost", "tgram://123456789:hidden/1"]
    """
    kept = masked(loads(text, tmp_path / "pipeline.toml"))
    assert "hidden" not in kept
    config = loads(kept, tmp_path / "pipeline.toml")
    graph = Graph(config, KeyTable(), VirtualClock(0))
    assert [*config.problems, *graph.problems] == []


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"urls": (Secret("json://localhost"), Secret("nonsense://hidden"))}, "urls.1"),
        ({"urls": (Secret("tgram://hidden"),)}, "urls.0"),
        ({"title": "{id}"}, "title"),
        ({"line": "{messag}"}, "line"),
    ],
)
def test_wrong_settings(given: dict[str, Any], setting: str) -> None:
    context = SinkContext("people", SCHEMAS, KeyTable())
    Notify(NotifySettings(**{"urls": (Secret("json://localhost"),), **given}), context)
    assert [where for where, _ in context.problems] == [setting]
    assert "hidden" not in str(context.problems)
