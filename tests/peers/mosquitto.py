"""A real mosquitto on a port of its own, and a proxy that can stop forwarding. (Debian: mosquitto)"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.device import free_port
from tests.waiting import eventually

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

PERSISTENCE = """
persistence true
persistence_location {folder}/
autosave_interval 1
"""
CONFIG = """
log_dest file {folder}/log
log_type {log}
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
listener {port} 127.0.0.1
"""


class Mosquitto:
    """Started by `start`, stopped by `stop`; what it keeps it keeps over a restart."""

    def __init__(
        self,
        folder: Path,
        *more: str,
        password: tuple[str, str] | None = None,
        tls: bool = False,
        log: str = "all",
        persistence: bool = True,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        lines = [CONFIG.format(folder=folder, port=self.port, log=log), *more]
        if persistence:
            lines.append(PERSISTENCE.format(folder=folder))
        if password is not None:
            accounts = folder / "accounts"
            subprocess.run(["mosquitto_passwd", "-b", "-c", str(accounts), *password], check=True)
            lines += ["allow_anonymous false", f"password_file {accounts}"]
        else:
            lines.append("allow_anonymous true")
        if tls:
            certificate(folder)
            lines += [f"certfile {folder / 'server.pem'}", f"keyfile {folder / 'server.key'}"]
        lines.append("user root")  # or else it drops to an account that may not write here
        self.config.write_text("\n".join(lines) + "\n")
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(signal.SIGKILL)

    async def start(self) -> None:
        assert MOSQUITTO is not None
        nothing = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(self.config), stdout=nothing, stderr=nothing
        )
        process = self.process

        async def listens() -> bool:
            assert process.returncode is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True
            return False

        await eventually(listens, lambda: "mosquitto did not start")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    async def logs(self, text: str, count: int = 1) -> None:
        """Returns once that stands in its log so often."""
        await eventually(
            lambda: self.log().count(text) >= count, lambda: f"mosquitto did not say {text!r}: {self.log()[-2000:]}"
        )

    async def settled(self, client: str) -> None:
        """Returns once it has every answer to what it has sent to a client with QoS 1 and 2; if that comes soon. With a
        message of QoS 2 that waits for its last answer when it is restarted mosquitto 2.0.11 begins anew, as MQTT forbids.
        """
        sent = re.compile(rf"Sending PUBLISH to {client} \(d0, q[12]")
        answers = re.compile(rf"Received (?:PUBACK|PUBCOMP) from {client} ")
        for _ in range(500):
            log = self.log()
            if len(sent.findall(log)) == len(answers.findall(log)):
                return
            await asyncio.sleep(0.01)


def certificate(folder: Path, name: str = "localhost") -> None:
    """`ca.pem`, and a `server.pem` with its key that it has signed, for 127.0.0.1."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def write(file: str, key: ec.EllipticCurvePrivateKey) -> None:
        plain = serialization.NoEncryption()
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / file).write_bytes(key.private_bytes(pem, form, plain))

    def made(subject: str, issuer: str) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        named = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (subject, issuer)]
        builder = x509.CertificateBuilder().subject_name(named[0]).issuer_name(named[1])
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = made("a test's CA", "a test's CA").public_key(ca_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    own = made(name, "a test's CA").public_key(key.public_key())
    names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]
    own = own.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for file, builder in (("ca.pem", ca), ("server.pem", own)):
        signed = builder.sign(ca_key, hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    write("server.key", key)


class Proxy:
    """Forwards a port, until it is told to stop: then both sides keep a connection on which nothing comes any more."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.open = asyncio.Event()  # cleared: what comes is taken and lost
        self.open.set()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, here = await asyncio.open_connection("127.0.0.1", self.to)
        self._writers += [writer, here]
        await asyncio.gather(self._pump(reader, here), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallows = False
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                swallows = swallows or not self.open.is_set()
                if not swallows:  # once it has lost something, this connection is dead for good
                    writer.write(data)
                    await writer.drain()
        if not swallows:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def proxy(to: int) -> AsyncIterator[Proxy]:
    made = Proxy(to)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.close()
        await server.wait_closed()
