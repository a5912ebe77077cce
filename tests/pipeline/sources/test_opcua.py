"""Values of an OPC UA server, that of asyncua: as they change, with certificates, gone and back, of bad quality."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncua as library
import pytest
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography.x509.oid import ExtendedKeyUsageOID

from pipeline import settings
from pipeline.component import Inbox, Payload, SourceContext
from pipeline.config import loads
from pipeline.frame import KeyTable
from pipeline.sources import opcua
from pipeline.sources.opcua import Change, Opcua, OpcuaSettings, nanoseconds, together
from tests.connectors.proxy import Proxy
from tests.device import free_port
from tests.stranger import stranger
from tests.waiting import eventually

asyncua: Any = library  # its types are no help: what the protocol calls an Int16 is a class of its own there
ua = asyncua.ua

SPACE = "urn:plant"
NODES = {
    "press": {"temperature": "ns=2;s=Press.Temperature", "running": "ns=2;s=Press.Running"},
    "oven": {"temperature": f"nsu={SPACE};s=Oven.Temperature"},
}
VALUES: dict[str, Any] = {"Press.Temperature": 20.0, "Press.Running": False, "Oven.Temperature": 200.0}
FIELDS = {"temperature": "float", "running": "bool"}
MOMENT = datetime(2026, 1, 1, 12, 0, 0, 250_000, UTC).replace(tzinfo=None)  # as asyncua has it

logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class Plc:
    """The server of asyncua with a few variables, in a thread of its own: to make its address space takes seconds."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}/plc"
        self.folder = folder
        self.nodes: dict[str, Any] = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self._make())

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _make(self) -> None:
        certificate, key = await certified(self.folder, "plc", ExtendedKeyUsageOID.SERVER_AUTH)
        self.server = asyncua.Server(user_manager=Users())
        await self.server.init()
        self.server.set_endpoint(self.url)
        policies = ua.SecurityPolicyType
        self.server.set_security_policy([policies.NoSecurity, policies.Basic256Sha256_SignAndEncrypt])
        await self.server.load_certificate(certificate)
        await self.server.load_private_key(key)
        assert await self.server.register_namespace(SPACE) == 2
        for name, value in VALUES.items():
            self.nodes[name] = await self.server.nodes.objects.add_variable(ua.NodeId(name, 2), name, value)
        await self.server.start()

    def reset(self) -> None:
        for name, value in VALUES.items():
            self.do(self._put(name, value, datetime.now(UTC).replace(tzinfo=None), ua.StatusCodes.Good, None))

    async def put(
        self, name: str, value: Any, at: datetime = MOMENT, status: int = 0, server: datetime | None = None
    ) -> None:
        work = self._put(name, value, at, status, server)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def _put(self, name: str, value: Any, at: datetime, status: int, server: datetime | None) -> None:
        stamped = ua.DataValue(ua.Variant(value), ua.StatusCode(status), at, server or at)
        await self.server.write_attribute_value(self.nodes[name].nodeid, stamped)

    async def stop(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop))

    async def start(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.server.start(), self.loop))

    def end(self) -> None:
        self.do(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _end(self) -> None:
        await self.server.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class Users(UserManager):
    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        return User(UserRole.User) if username is None or (username, password) == ("pi", "right") else None


async def certified(folder: Path, name: str, use: Any) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.der", folder / f"{name}.pem"
    subject = {"organizationName": "plant", "commonName": name}
    await setup_self_signed_certificate(key, certificate, f"urn:{name}", "127.0.0.1", [use], subject)
    return certificate, key


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plc]:
    plc = Plc(tmp_path_factory.mktemp("plc"))
    yield plc
    plc.end()


@pytest.fixture
def plc(served: Plc) -> Plc:
    served.reset()
    return served


class Taken(Inbox):
    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.open = asyncio.Event()
        self.open.set()

    def offer(self, payload: Payload) -> bool:
        payload.arrival = 7
        self.payloads.append(payload)
        return True

    async def put(self, payload: Payload) -> None:
        await self.open.wait()
        self.offer(payload)

    async def taken(self) -> None: ...
    def end(self) -> None: ...


def source(folder: Path = Path(), **given: Any) -> tuple[Opcua, list[tuple[str, str]]]:
    base = {"url": "opc.tcp://127.0.0.1:4840", "nodes": NODES, "fields": FIELDS, "key": "machine"}
    read = settings.read(OpcuaSettings, {**base, "every": "20 ms", "timeout": "2 s", **given})
    assert read.found == []
    context = SourceContext("line", KeyTable(), folder=folder)
    return Opcua(read.settings, context), context.problems


class Rows:
    def __init__(self, made: Opcua) -> None:
        self.made = made
        self.inbox = Taken()

    def all(self) -> list[tuple[Any, ...]]:
        """Each reading: key, time, temperature, running."""
        if not self.inbox.payloads:
            return []
        decoded = self.made.decode(self.inbox.payloads)
        assert decoded.times is not None
        columns = [decoded.columns[name].tolist() for name in FIELDS]
        return list(zip(decoded.keys, decoded.times.tolist(), *columns, strict=True))

    def refused(self) -> list[str]:
        return [r.reason for r in self.made.decode(self.inbox.payloads).refused]

    async def until(self, *wanted: tuple[Any, ...]) -> None:
        """Until these (key, temperature, running) have come, in any order."""
        await until(lambda: set(wanted) <= {(key, *values) for key, _, *values in self.all()}, self)


async def until(holds: Any, rows: Rows) -> None:
    await eventually(holds, lambda: (rows.made.trouble, rows.all()))


@asynccontextmanager
async def running(folder: Path = Path(), **given: Any) -> AsyncIterator[Rows]:
    made, problems = source(folder, **given)
    assert problems == []
    rows = Rows(made)
    task = asyncio.create_task(made.run(rows.inbox, None))
    try:
        yield rows
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.1)


async def test_present_values_first_then_what_changes(plc: Plc) -> None:
    """With the device's time; what one key has of the same moment is one reading; a namespace by its URI."""
    async with running(url=plc.url) as rows:
        await until(lambda: {key for key, *_ in rows.all()} == {"press", "oven"}, rows)
        await plc.put("Press.Temperature", 21.5)
        await plc.put("Press.Running", True)
        await plc.put("Oven.Temperature", 210.0, MOMENT + timedelta(microseconds=1))
        at = nanoseconds(MOMENT)
        assert at == 1_767_268_800_250_000_000
        wanted = {("press", at, 21.5, True), ("oven", at + 1_000, 210.0, None)}
        await until(lambda: wanted <= set(rows.all()) or len(rows.all()) > 4, rows)
        found = [row for row in rows.all() if row[1] >= at and row[0] == "press" and row[1] < at + 10**9]
        # The two changes of the press may have been told in two tellings, if one fell in between.
        assert found in ([("press", at, 21.5, True)], [("press", at, 21.5, None), ("press", at, None, True)])
        assert rows.made.trouble == ""


@pytest.mark.parametrize(("clock", "wanted"), [("server", 1_767_268_801_250_000_000), ("arrival", 7)])
async def test_whose_clock_dates_a_reading(plc: Plc, clock: str, wanted: int) -> None:
    async with running(url=plc.url, clock=clock) as rows:
        await rows.until(("oven", 200.0, None))
        await plc.put("Oven.Temperature", 1.0, server=MOMENT + timedelta(seconds=1))
        await rows.until(("oven", 1.0, None))
        assert ("oven", wanted, 1.0, None) in rows.all()


async def test_bad_and_uncertain_values(plc: Plc) -> None:
    """A bad one is missing and named until it is good; an uncertain one is taken, unless told otherwise."""
    async with (
        running(url=plc.url) as rows,
        running(url=plc.url, uncertain="missing") as strict,
    ):
        await rows.until(("oven", 200.0, None))
        await strict.until(("oven", 200.0, None))
        await plc.put("Oven.Temperature", 5.0, status=ua.StatusCodes.BadSensorFailure)
        await rows.until(("oven", None, None))
        assert rows.made.trouble == "oven.temperature: BadSensorFailure"
        later = MOMENT + timedelta(seconds=1)
        await plc.put("Oven.Temperature", 6.0, later, ua.StatusCodes.UncertainLastUsableValue)
        await rows.until(("oven", 6.0, None))
        assert rows.made.trouble == ""
        await until(lambda: strict.made.trouble == "oven.temperature: UncertainLastUsableValue", strict)
        assert 6.0 not in [row[2] for row in strict.all()]
        assert 5.0 not in [row[2] for row in rows.all()]


async def test_a_value_of_another_type_is_a_dead_letter(plc: Plc) -> None:
    """And so is NaN; the others come."""
    nodes = {"press": {"running": "ns=2;s=Press.Temperature"}, "oven": NODES["oven"]}
    async with running(url=plc.url, nodes=nodes) as rows:
        await rows.until(("oven", 200.0, None))
        await until(rows.refused, rows)
        await plc.put("Oven.Temperature", float("nan"))
        await until(lambda: len(rows.refused()) == 2, rows)
        assert rows.refused() == ["running: expected bool, got float", "temperature: NaN"]


async def test_a_node_that_is_not_there(plc: Plc) -> None:
    """It is named; the others come."""
    nodes = {
        "press": {"temperature": "ns=2;s=Press.Temprature"},
        "oven": NODES["oven"],
        "x": {"running": "nsu=urn:x;i=5"},
    }
    async with running(url=plc.url, nodes=nodes) as rows:
        await rows.until(("oven", 200.0, None))
        await until(lambda: "BadNodeIdUnknown" in rows.made.trouble, rows)
        assert set(rows.made.trouble.split("; ")) == {
            "press.temperature: BadNodeIdUnknown",
            "x.running: the server has no such namespace",
        }


async def test_a_server_that_goes_away_and_comes_back(plc: Plc, caplog: pytest.LogCaptureFixture) -> None:
    """Told while it is away; then the present values come, by a new subscription, and changes go on."""
    async with running(url=plc.url) as rows:
        await rows.until(("oven", 200.0, None))
        await plc.stop()
        try:
            await until(lambda: rows.made.trouble.startswith(plc.url), rows)
            await plc.put("Oven.Temperature", 300.0)
        finally:
            await plc.start()
        await rows.until(("oven", 300.0, None))
        await plc.put("Oven.Temperature", 301.0)
        await rows.until(("oven", 301.0, None))
        await until(lambda: rows.made.trouble == "", rows)
    assert f"line: connected to {plc.url} again" in caplog.text


async def test_a_connection_that_is_half_open_is_given_up(plc: Plc) -> None:
    """Nothing comes over it any more; what did not change meanwhile is not told twice."""
    async with (
        Proxy(plc.port) as proxy,
        running(url=f"opc.tcp://127.0.0.1:{proxy.port}/plc") as rows,
    ):
        await plc.put("Oven.Temperature", 201.0)
        await rows.until(("oven", 201.0, None))
        proxy.freeze()
        await plc.put("Press.Temperature", 22.0)
        await rows.until(("press", 22.0, None))
        await until(lambda: rows.made.trouble == "", rows)
        assert [row[2] for row in rows.all() if row[0] == "oven"].count(201.0) == 1


async def test_user_and_password(plc: Plc) -> None:
    """A wrong one is told, and shown nowhere."""
    async with running(url=plc.url, user="pi", password="right") as rows:
        await rows.until(("oven", 200.0, None))
    async with running(url=plc.url, user="pi", password="wrong-3f9c") as rows:
        await until(lambda: rows.made.trouble, rows)
        assert "wrong-3f9c" not in rows.made.trouble + repr(rows.made.settings)
        assert rows.all() == []


async def test_certificates(plc: Plc) -> None:
    """Signed and encrypted with the server that is named, and with no other."""
    folder = plc.folder
    await certified(folder, "headwater", ExtendedKeyUsageOID.CLIENT_AUTH)
    await certified(folder, "other", ExtendedKeyUsageOID.SERVER_AUTH)
    own = {"certificate": "headwater.der", "key": "headwater.pem"}
    async with running(folder, url=plc.url, security={**own, "server": "plc.der"}) as rows:
        await rows.until(("oven", 200.0, None))
    async with running(folder, url=plc.url, security={**own, "verify": False}) as rows:
        await rows.until(("oven", 200.0, None))
    async with running(folder, url=plc.url, security={**own, "server": "other.der"}) as rows:
        await until(lambda: rows.made.trouble, rows)
        assert rows.all() == []
    async with running(folder, url=plc.url, security={**own, "server": "gone.der"}) as rows:
        await until(lambda: "gone.der" in rows.made.trouble, rows)


async def test_a_peer_that_speaks_something_else() -> None:
    async with stranger() as port, running(url=f"opc.tcp://127.0.0.1:{port}") as rows:
        await until(lambda: rows.made.trouble, rows)
        assert rows.all() == []


async def test_what_waits_for_the_inbox_is_bounded(plc: Plc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest changes are dropped; the newest come."""
    monkeypatch.setattr(opcua, "WAITING", 10)
    async with running(url=plc.url, queue=1_000) as rows:
        await rows.until(("oven", 200.0, None))
        rows.inbox.open.clear()
        for i in range(50):
            await plc.put("Oven.Temperature", float(i), MOMENT + timedelta(seconds=i))
        await until(lambda: rows.made.dropped >= 30, rows)
        assert len(rows.made._waiting) <= 10
        rows.inbox.open.set()
        await rows.until(("oven", 49.0, None))


def test_changes_of_one_moment_are_one_reading() -> None:
    changes = [
        ("a", "x", 1, 1),
        ("b", "x", 1, 2),
        ("a", "y", 1, 3),
        ("a", "x", 2, 4),
        ("a", "x", 2, 5),
        ("a", "y", 2, 6),
    ]
    waiting = deque(Change(*change) for change in changes)
    assert [tuple(r) for r in together(waiting, 100)] == [
        ("a", 1, {"x": 1, "y": 3}),
        ("b", 1, {"x": 2}),
        ("a", 2, {"x": 4}),
        ("a", 2, {"x": 5, "y": 6}),
    ]
    assert not waiting


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "opc.tcp://"}, ("url", "is not the address of a server")),
        ({"nodes": {}}, ("nodes", "name at least one")),
        ({"nodes": {"a": {"speed": "i=1"}}}, ("nodes.a.speed", "has no type")),
        ({"nodes": {"a": {"temperature": "Press.Speed"}}}, ("nodes.a.temperature", "is not the id of a node")),
        ({"fields": {"temperature": "floa", "running": "bool"}}, ("fields.temperature", "is not a type")),
        ({"key": "running"}, ("fields.running", "give it another name")),
        ({"user": "pi"}, ("user", "go together")),
        ({"security": {"certificate": "a", "key": "b"}}, ("security.server", "verify = false")),
    ],
)
def test_wrong_settings_are_told(given: dict[str, Any], problem: tuple[str, str]) -> None:
    _, problems = source(**given)
    assert any(setting == problem[0] and problem[1] in text for setting, text in problems), problems


def test_a_test_block_gives_readings() -> None:
    made, _ = source()
    payload = made.given({"machine": "oven", "temperature": 1})
    assert payload is not None
    payload.arrival = 5
    decoded = made.decode([payload])
    assert (list(decoded.keys), decoded.columns["temperature"].tolist()) == (["oven"], [1.0])
    assert decoded.times is not None
    assert decoded.times.tolist() == [5]


def test_the_example_of_the_docstring_is_a_good_source(tmp_path: Path) -> None:
    doc = (Opcua.__doc__ or "").split("\n\n", 1)[1].split("\n    The server tells", 1)[0]
    text = '[pipeline]\nname = "p"\n' + "\n".join(line.strip() for line in doc.splitlines())
    assert loads(text, tmp_path / "pipeline.toml").problems == []


def test_times_are_utc() -> None:
    second = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert nanoseconds(second.replace(tzinfo=None)) == nanoseconds(second) == 10**9
    assert nanoseconds(None) is None
