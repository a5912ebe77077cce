"""`mqtt` as a source: a real mosquitto, to which paho publishes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from tests.connectors.rig import FIELDS, WRONG, SourceRig, line, program_version
from tests.peers.mosquitto import Mosquitto
from tests.peers.paho import Paho

ACCOUNT = ("device", "right")


class MqttRig(SourceRig):
    peer = "mosquitto"
    promise = "exactly once"  # with qos = 2
    limit = "the broker keeps the rest"
    waits = None  # paho may be through with a flood: the broker keeps it

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.broker: Mosquitto | None = None

    def version(self) -> str | None:
        return program_version("mosquitto", "-h", word=2)

    async def start(self) -> int:
        if self.broker is None:
            self.broker = Mosquitto(self.folder, password=ACCOUNT)
        await self.broker.start()
        return self.broker.port

    async def stop(self) -> None:
        if self.broker is not None:
            await self.broker.settled("headwater-contract-given")
            await self.broker.stop(signal.SIGTERM)  # at SIGKILL it loses what it has not saved, and that is its own

    def _settings(self, port: int | None, password: str) -> str:
        where = f'url = "mqtt://127.0.0.1:{port}"\ntopics = ["given/#"]\nqos = 2\nkeepalive = "1 s"'
        return f'type = "mqtt"\n{where}\nusername = "device"\npassword = "{password}"\n{FIELDS}'

    def settings(self, port: int | None) -> str:
        return self._settings(port, ACCOUNT[1])

    def wrong_settings(self, port: int | None) -> str:
        return self._settings(port, WRONG)

    async def _publish(self, payloads: Sequence[bytes]) -> None:
        assert self.broker is not None
        await self.broker.logs("Sending SUBACK to ")  # before there is a session nothing is kept for it
        async with Paho(self.broker.port, account=ACCOUNT) as paho:
            await paho.publish([("given/x", payload) for payload in payloads], 2)

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        await self._publish([line(n, pad) for n in numbers])
        return list(numbers)

    async def garbage(self) -> int:
        await self._publish([b"\x00\xff\xfe{{{", b"", b'{"id": "c", "n": "many"}'])
        return 3
