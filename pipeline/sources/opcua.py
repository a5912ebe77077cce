"""`opcua`: values of an OPC UA server, as they change."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from msgspec import Meta

from pipeline.component import Decoded, Inbox, Payload, Refused, Settings, Source, SourceContext
from pipeline.frame import Field, Schema, column
from pipeline.quantity import Duration, Secret, duration
from pipeline.reading import parse_fields
from pipeline.reconnect import Connection

log = logging.getLogger("headwater")

WAITING = 10_000  # changes that wait for room in the inbox; beyond that the oldest are dropped
AT_ONCE = 1_000  # readings in a payload at most
READING_BYTES = 200  # what a reading counts for in the inbox
TOLD = 5  # nodes without a good value that /health names
_NODE_ID = re.compile(r"(?:nsu=[^;]+;|ns=\d+;)?[isgb]=.+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SecuritySettings(Settings, frozen=True, kw_only=True):
    certificate: Annotated[Path, Meta(description="Our certificate, DER or PEM; the server must trust it.")]
    key: Annotated[Path, Meta(description="Its key.")]
    server: Annotated[Path | None, Meta(description="The server's certificate. No other is talked to.")] = None
    verify: Annotated[bool, Meta(description="Without, whatever certificate the server shows is taken.")] = True
    policy: Annotated[
        Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"], Meta(description="The security policy.")
    ] = "Basic256Sha256"
    mode: Annotated[Literal["Sign", "SignAndEncrypt"], Meta(description="Signed only, or encrypted too.")] = (
        "SignAndEncrypt"
    )
    application_uri: Annotated[str, Meta(description="Who we are: what stands in our certificate as URI.")] = (
        "urn:headwater"
    )


class OpcuaSettings(Settings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="The server: opc.tcp://host:4840.")]
    nodes: Annotated[
        dict[str, dict[str, str]],
        Meta(description="For each key its fields, each with the id of the node that has it."),
    ]
    fields: Annotated[dict[str, str], Meta(description="Types of the fields: float, int, bool or string.")]
    key: Annotated[str, Meta(min_length=1, description="What the key is called in a reading.")] = "node"
    every: Annotated[Duration, Meta(ge=10_000_000, description="How often the server tells what has changed.")] = (
        duration("1 s")
    )
    sampling: Annotated[Duration | None, Meta(description="How often it looks at its values. Absent: as `every`.")] = (
        None
    )
    queue: Annotated[
        int, Meta(ge=1, le=10_000, description="Changes of a node that the server keeps between two tellings.")
    ] = 10
    clock: Annotated[
        Literal["source", "server", "arrival"],
        Meta(description="Whose clock dates a reading: the device's, the server's, ours."),
    ] = "source"
    uncertain: Annotated[Literal["take", "missing"], Meta(description="What a value of uncertain quality is.")] = "take"
    timeout: Annotated[Duration, Meta(ge=100_000_000, description="How long an answer may take.")] = duration("4 s")
    user: Annotated[str | None, Meta(description="User name. Absent: anonymous, or by certificate.")] = None
    password: Annotated[Secret | None, Meta(description="Its password.")] = None
    security: Annotated[
        SecuritySettings | None, Meta(description="Certificates. Absent: neither signed nor encrypted.")
    ] = None


class Change(NamedTuple):
    """What the server told of one node."""

    key: str
    field: str
    time: int | None  # ns
    value: Any  # None: there is no good one


class Reading(NamedTuple):
    key: str
    time: int | None  # ns; None: of its arrival
    values: dict[str, Any]


class Opcua(Source):
    """Values of an OPC UA server (a PLC, a SCADA gateway), by subscription.

        [sources.line]
        type = "opcua"
        url = "opc.tcp://192.168.1.30:4840"
        every = "500 ms"
        key = "machine"
        fields = { temperature = "float", running = "bool" }

        [sources.line.nodes]
        press = { temperature = "ns=2;s=Press.Temperature", running = "ns=2;s=Press.Running" }
        oven = { temperature = "nsu=urn:plant;s=Oven.Temperature" }

    The server tells what has changed every `every`, at first the present values. What one key has of the same moment is one
    reading; fields that did not change are missing in it (the expression `latest(x)` gives them). `clock` says whose dates it:
    where a PLC's is wrong, take "server" or "arrival". `nsu=` names a namespace by its URI, whose number may change.
    Quality: a bad value is missing, and its node is named on /health with the status until it is good; an uncertain one is
    taken, or missing with `uncertain = "missing"`. A value of another type than its field makes the reading a dead letter.
    `security`: with certificates; `server` is the only one that is talked to. `user` and `password` without it cross the network
    as the server asks for them, mostly readable.
    A lost connection is found within two `timeout`, and made anew with a new subscription; what changed meanwhile is not told,
    only what holds then. A node that the server does not know is named on /health and asked for at the next connection.
    Delivery: each change at most once; the server forgets it when it has told. At the limit: of what waits for room in the inbox
    the oldest changes are dropped and counted in the log. In a test, fields that a row does not name are missing.
    """

    def __init__(self, settings: OpcuaSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        kinds = {name: Field(f.kind, True, f.nan) for name, f in parse_fields(settings.fields, context).items()}
        self._check(kinds)
        self.schema = Schema(settings.key, kinds)
        self.asyncua: Any = None  # the library, once it runs
        self.bad: dict[str, str] = {}  # node, as key.field: its status
        self.dropped = 0
        self._waiting: deque[Change] = deque()
        self._more = asyncio.Event()
        self._told: dict[
            tuple[str, str], tuple[Any, Any]
        ] = {}  # time and value last told, so that a reconnect repeats none

    def _check(self, kinds: Mapping[str, Field]) -> None:
        settings, context = self.settings, self.context
        if find_spec("asyncua") is None:
            context.problem("type", 'needs asyncua: pip install "headwater[opcua]"')
        if not settings.url.startswith("opc.tcp://") or not urlsplit(settings.url).hostname:
            context.problem(
                "url", f'"{settings.url}" is not the address of a server; write it as opc.tcp://192.168.1.30:4840'
            )
        if not settings.nodes or not kinds:
            context.problem("nodes", "name at least one, and its field's type in fields")
        for name in (settings.key, "time"):
            if name in kinds:
                context.problem(f"fields.{name}", "is the key or the time; give it another name")
        for key, fields in settings.nodes.items():
            for name, node in fields.items():
                if name not in kinds:
                    context.problem(f"nodes.{key}.{name}", f'has no type; add it to fields: {name} = "float"')
                if not _NODE_ID.fullmatch(node):
                    context.problem(
                        f"nodes.{key}.{name}", f'"{node}" is not the id of a node; such as "ns=2;s=Press.Speed"'
                    )
        if (settings.user is None) is not (settings.password is None):
            context.problem("user", "user and password go together")
        if settings.security is not None and settings.security.verify is (settings.security.server is None):
            context.problem("security.server", "name the server's certificate, or say verify = false to take any")

    # --- a connection ---

    async def run(self, inbox: Inbox, position: Any) -> None:
        # It is large: importing it takes a second or more, during which the others go on.
        self.asyncua = await asyncio.to_thread(importlib.import_module, "asyncua")
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what goes wrong is told by us
        connection = Connection(self, self._shown_url(), (self.asyncua.ua.UaError,))
        moving = asyncio.create_task(self._move(inbox))
        try:
            await connection.keep(lambda: self._session(connection))
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)

    def _shown_url(self) -> str:
        parts = urlsplit(self.settings.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def _session(self, connection: Connection) -> None:
        """Until the connection is lost."""
        client = await self._client()
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_lost(error: Exception) -> None:
            if not lost.done():
                lost.set_exception(ConnectionError(str(error) or "the server does not answer"))

        client.connection_lost_callback = on_lost
        timeout = self.settings.timeout.seconds
        try:
            async with asyncio.timeout(4 * timeout):
                await client.connect()
                await self._subscribe(client, lost)
            connection.up()
            self._show()
            await lost
        except (OSError, self.asyncua.ua.UaError):
            raise
        except Exception as error:  # what a peer's bytes lead the library to
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            lost.cancel()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(timeout):
                    await client.disconnect()
            client.disconnect_socket()

    async def _client(self) -> Any:
        policies = importlib.import_module("asyncua.crypto.security_policies")
        settings = self.settings
        timeout = settings.timeout.seconds
        client = self.asyncua.Client(settings.url, timeout=timeout, watchdog_intervall=timeout)
        if settings.user is not None and settings.password is not None:
            client.set_user(settings.user)
            client.set_password(settings.password.reveal())
        if (security := settings.security) is not None:
            client.application_uri = security.application_uri
            folder = self.context.folder
            try:
                async with asyncio.timeout(2 * timeout):
                    await client.set_security(
                        getattr(policies, f"SecurityPolicy{security.policy}"),
                        str(folder / security.certificate),
                        str(folder / security.key),
                        server_certificate=str(folder / security.server) if security.server else None,
                        mode=getattr(self.asyncua.ua.MessageSecurityMode, security.mode),
                    )
            except ValueError as error:
                raise ConnectionError(f"security: a file holds no certificate or key: {error}") from error
        return client

    async def _subscribe(self, client: Any, lost: asyncio.Future[None]) -> None:
        ua = self.asyncua.ua
        numbers = await self._namespaces(client)
        self.bad.clear()
        named: dict[Any, list[tuple[str, str]]] = {}
        for key, fields in self.settings.nodes.items():
            for name, text in fields.items():
                try:
                    named.setdefault(client.get_node(_numbered(text, numbers)), []).append((key, name))
                except (ua.UaError, ValueError) as error:
                    self.bad[f"{key}.{name}"] = str(error)
        every = self.settings.every
        subscription = await client.create_subscription(every / 1e6, _Handler(self, named, lost))
        sampling = (self.settings.sampling or every) / 1e6
        results = await subscription.subscribe_data_change(
            list(named), queuesize=self.settings.queue, sampling_interval=sampling
        )
        for nodes, result in zip(named.values(), results, strict=True):
            if isinstance(result, ua.StatusCode):
                self.bad |= {f"{key}.{name}": result.name for key, name in nodes}

    async def _namespaces(self, client: Any) -> dict[str, int]:
        if not any(node.startswith("nsu=") for fields in self.settings.nodes.values() for node in fields.values()):
            return {}
        return {uri: number for number, uri in enumerate(await client.get_namespace_array())}

    # --- changes ---

    def changed(self, key: str, name: str, data: Any) -> None:
        """The server tells the value of a node."""
        status = data.StatusCode
        value = data.Value.Value if data.Value is not None else None
        time = self._time(data)
        if status is not None and (status.is_bad() or (status.is_uncertain() and self.settings.uncertain == "missing")):
            value = None
            self.bad[f"{key}.{name}"] = status.name
        else:
            self.bad.pop(f"{key}.{name}", None)
        self._show()
        stamp = data.SourceTimestamp or data.ServerTimestamp
        if stamp is not None and self._told.get((key, name)) == (stamp, value):
            return  # told before the connection was lost
        self._told[key, name] = (stamp, value)
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.dropped += 1
            if self.dropped.bit_count() == 1:  # the first, the second, the fourth …
                log.warning("%s: %d changes were dropped: the inbox is full", self.context.name, self.dropped)
        self._waiting.append(Change(key, name, time, value))
        self._more.set()

    def _time(self, data: Any) -> int | None:
        if self.settings.clock == "arrival":
            return None
        stamps = (data.SourceTimestamp, data.ServerTimestamp)
        return nanoseconds(next((s for s in (stamps if self.settings.clock == "source" else stamps[::-1]) if s), None))

    def _show(self) -> None:
        told = [f"{node}: {status}" for node, status in self.bad.items()]
        more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
        self.trouble = "; ".join(told[:TOLD]) + more

    async def _move(self, inbox: Inbox) -> None:
        """What has come meanwhile goes on in one piece."""
        while True:
            self._more.clear()
            while self._waiting:
                readings = together(self._waiting, AT_ONCE)
                await inbox.put(Payload(readings, READING_BYTES * len(readings)))
            await self._more.wait()

    # --- readings ---

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        key = str(reading.get(self.settings.key, next(iter(self.settings.nodes))))
        values = {name: reading[name] for name in self.schema.fields if name in reading}
        return Payload([Reading(key, None, values)], READING_BYTES)

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        good: list[Reading] = []
        times: list[int] = []
        counts: list[int] = []
        refused: list[Refused] = []
        for at, payload in enumerate(payloads):
            before = len(good)
            for item, reading in enumerate(payload.data):
                if why := self._unfit(reading):
                    refused.append(Refused(at, item, why, f"{reading.key} {reading.values}"[:200]))
                    continue
                good.append(reading)
                times.append(payload.arrival if reading.time is None else reading.time)
            counts.append(len(good) - before)
        columns = {
            name: column(field.kind, [reading.values.get(name) for reading in good])
            for name, field in self.schema.fields.items()
        }
        return Decoded([r.key for r in good], np.array(times, np.int64), columns, counts, refused)

    def _unfit(self, reading: Reading) -> str:
        """Why it is no reading; "": it is one."""
        for name, value in reading.values.items():
            if value is None:
                continue
            field = self.schema.fields[name]
            if type(value) not in _FITS[field.kind]:
                return f"{name}: expected {field.kind}, got {type(value).__name__}"
            if field.kind == "int" and not -(2**63) <= value < 2**63:
                return f"{name}: {value} has more than 64 bits"
            if value != value and not field.nan:  # NaN alone is not itself
                return f"{name}: NaN"
        return ""


_FITS: dict[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,), "string": (str,)}


class _Handler:
    """What asyncua calls."""

    def __init__(self, source: Opcua, named: Mapping[Any, list[tuple[str, str]]], lost: asyncio.Future[None]) -> None:
        self.source = source
        self.named = named
        self.lost = lost

    def datachange_notification(self, node: Any, val: Any, data: Any) -> None:
        for key, name in self.named[node]:
            self.source.changed(key, name, data.monitored_item.Value)

    def status_change_notification(self, status: Any) -> None:
        if not self.lost.done():
            self.lost.set_exception(ConnectionError(f"the subscription has ended: {status.Status.name}"))


def _numbered(node: str, numbers: Mapping[str, int]) -> str:
    """The id of a node with the number that its namespace has at this server. ValueError: it has none."""
    uri, _, rest = node.partition(";")
    if not uri.startswith("nsu="):
        return node
    if (number := numbers.get(uri.removeprefix("nsu="))) is None:
        raise ValueError("the server has no such namespace")
    return f"ns={number};{rest}"


def together(waiting: deque[Change], most: int) -> list[Reading]:
    """Changes as readings: what a key has of the same moment is one."""
    made: list[Reading] = []
    open_: dict[tuple[str, int | None], Reading] = {}
    while waiting and len(made) < most:
        change = waiting.popleft()
        reading = open_.get((change.key, change.time))
        if reading is None or change.field in reading.values:
            reading = open_[change.key, change.time] = Reading(change.key, change.time, {})
            made.append(reading)
        reading.values[change.field] = change.value
    return made


def nanoseconds(stamp: datetime | None) -> int | None:
    """A time as OPC UA has it (UTC, said or not), since 1970."""
    if stamp is None:
        return None
    return (stamp.replace(tzinfo=stamp.tzinfo or UTC) - _EPOCH) // _MICROSECOND * 1_000
