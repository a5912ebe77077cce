"""Which MQTT broker, and how to log in: what the mqtt source and the mqtt sink have in common."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from pipeline.component import Context, Settings
from pipeline.mqtt.client import PORTS, Client
from pipeline.mqtt.packets import Publish, Version, Will
from pipeline.mqtt.session import MqttError, Options
from pipeline.mqtt.wire import LONGEST_TEXT
from pipeline.quantity import Duration, Secret, duration
from pipeline.tls import TlsSettings, check, client_context

if TYPE_CHECKING:
    from pathlib import Path

FAREWELL_S = 1.0  # for the last words when one leaves in order
_LONGEST_KEEPALIVE_S = 65_535

Url = Annotated[str, Meta(description="mqtt://HOST:PORT, or mqtts:// with TLS; without a port 1883, or 8883.")]
MqttVersion = Annotated[Literal["5", "3.1.1", 5], Meta(description="The version of MQTT; each broker speaks 3.1.1.")]
Username = Annotated[str | None, Meta(description="To log in with; may stand in the url, too.")]
Password = Annotated[Secret | None, Meta(description="Goes with it.")]
ClientId = Annotated[
    str, Meta(description="The name that the broker knows us by; no two may be alike. Absent: headwater-PIPELINE-NAME.")
]
Tls = Annotated[TlsSettings | None, Meta(description="For mqtts://: whom to trust, and our own certificate.")]
Keepalive = Annotated[Duration, Meta(description="A connection on which nothing comes for this long is given up.")]
MINUTE = duration("1 min")


class WillSettings(Settings, frozen=True, kw_only=True):
    topic: Annotated[str, Meta(description="Where it is told whether we are there.")]
    online: Annotated[str, Meta(description="What is published there when connected.")] = "online"
    offline: Annotated[str, Meta(description="What when not: by us, or by the broker as our will.")] = "offline"
    retain: Annotated[bool, Meta(description="Kept by the broker for who comes later.")] = True


class Login(Protocol):
    """The settings that are asked."""

    @property
    def url(self) -> str: ...
    @property
    def version(self) -> Literal["5", "3.1.1", 5]: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> Secret | None: ...
    @property
    def client_id(self) -> str: ...
    @property
    def tls(self) -> TlsSettings | None: ...
    @property
    def keepalive(self) -> Duration: ...


class Broker:
    """One broker, from settings; what is wrong with them is reported."""

    def __init__(self, settings: Login, context: Context, will: WillSettings | None) -> None:
        self.settings = settings
        self.will = will
        self.folder: Path = context.folder
        self.version: Version = 4 if settings.version == "3.1.1" else 5
        self.client_id = settings.client_id or f"headwater-{context.pipeline}-{context.name}"
        self.keepalive = round(settings.keepalive.seconds)
        self.host, self.port = "", 0
        self.username = settings.username
        self.password = settings.password.reveal() if settings.password else None
        self._read_url(settings.url, context)
        if not 1 <= self.keepalive <= _LONGEST_KEEPALIVE_S:
            context.problem("keepalive", 'must be at least "1 s" and at most "18 h"')
        if will is not None and (not will.topic or set(will.topic) & set("+#\0")):
            context.problem("will.topic", f'"{will.topic}" is not a topic; write it as "headwater/status"')
        if self.version == 4 and self.password is not None and self.username is None:
            context.problem("password", "goes with a username, and there is none")
        for name, text in (("client_id", self.client_id), ("username", self.username), ("password", self.password)):
            if text is not None and ("\0" in text or len(text.encode()) > LONGEST_TEXT):
                context.problem(name, f"has a NUL in it, or more than {LONGEST_TEXT:,} bytes")
        if settings.tls is not None:
            check(settings.tls, context)
            if not self.secure:
                context.problem("tls", 'is for mqtts://; write the url as "mqtts://HOST:8883"')

    @property
    def secure(self) -> bool:
        return self.settings.url.lower().startswith("mqtts:")

    @property
    def shown(self) -> str:
        """Its address, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.secure else 'mqtt'}://{host}:{self.port}"

    def _read_url(self, url: str, context: Context) -> None:
        example = 'write it as "mqtt://127.0.0.1:1883"'
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:
            context.problem("url", f"is not an address; {example}")
            return
        if parts.scheme not in PORTS or not host:
            meant = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts"}.get(parts.scheme)
            hint = f' (did you mean "{meant}://"?)' if meant else f"; {example}"
            context.problem("url", f"must begin with mqtt:// or mqtts:// and a host{hint}")
            return
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            context.problem("url", "ends with the port; topics stand in a setting of their own")
        self.host, self.port = host, port or PORTS[parts.scheme]
        if parts.username is not None:
            for name, given in (("username", self.username), ("password", self.password and parts.password)):
                if given is not None:
                    context.problem(name, "stands in the url, too; leave one of them out")
            self.username = unquote(parts.username)
            self.password = None if parts.password is None else unquote(parts.password)

    # --- connecting ---

    def options(self, **more: Any) -> Options:
        """What a connection is made with. OSError: a file of tls cannot be used."""
        tls = client_context(self.settings.tls, self.folder) if self.secure else None
        will = self.will
        return Options(
            self.host,
            self.port,
            self.client_id,
            self.version,
            username=self.username,
            password=self.password,
            tls=tls,
            keepalive=self.keepalive,
            will=Will(will.topic, will.offline.encode(), 1, will.retain) if will else None,
            **more,
        )

    async def arrive(self, client: Client) -> None:
        """Tell that we are there."""
        if self.will is not None:
            await client.publish([self._told(self.will.online)])

    async def leave(self, client: Client) -> None:
        """Tell that we are not, and end the connection in order."""
        if self.will is not None and not client.ended.done():
            with contextlib.suppress(MqttError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await client.publish([self._told(self.will.offline)])
        await client.disconnect()

    def _told(self, text: str) -> Publish:
        assert self.will is not None
        return Publish(self.will.topic, text.encode(), 1, self.will.retain)

    def why(self, error: MqttError) -> str:
        """Why a connection ended, with what may be behind it."""
        if str(error) == "the broker closed the connection":
            return f'{error} (does another client use the client id "{self.client_id}"?)'
        return str(error)
