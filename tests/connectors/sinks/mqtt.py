"""`mqtt` as a sink: a real mosquitto, which remembers nothing; paho listens."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.connectors.rig import SinkRig, program_version
from tests.peers.mosquitto import Mosquitto
from tests.peers.paho import Paho

ACCOUNT = ("device", "right")


class MqttRig(SinkRig):
    peer = "mosquitto"
    promise = "at least once"
    password = ACCOUNT[1]
    limit = "buffer, then 429"
    without = {"refusal": "mosquitto has no way to refuse one message; tests/sinks/test_mqtt.py does that"}

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.broker: Mosquitto | None = None
        self.paho: Paho | None = None
        self.heard: list[int] = []

    def version(self) -> str | None:
        return program_version("mosquitto", "-h", word=2)

    async def start(self) -> int:
        if self.broker is None:
            self.broker = Mosquitto(self.folder, password=ACCOUNT)
        await self.broker.start()
        self.paho = Paho(self.broker.port, account=ACCOUNT)
        await self.paho.__aenter__()
        await self.paho.subscribe("headwater/posted/#")
        return self.broker.port

    async def stop(self) -> None:
        if self.paho is not None:
            self._listen()
            await self.paho.__aexit__()
            self.paho = None
        if self.broker is not None:
            await self.broker.stop(signal.SIGKILL)

    def _listen(self) -> None:
        if self.paho is not None:
            taken, self.paho.heard = self.paho.heard, []
            self.heard += [json.loads(message.payload)["n"] for message in taken]

    def settings_with(self, port: int | None, password: str) -> str:
        where = f'url = "mqtt://127.0.0.1:{port}"\nkeepalive = "1 s"\ntimeout = "1 s"'
        return f'type = "mqtt"\n{where}\nusername = "device"\npassword = "{password}"'

    async def received(self) -> list[int]:
        self._listen()
        return list(self.heard)
