"""`iio`: a device of a made sysfs, whose one file holds a number until it is given the next."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.connectors.rig import SourceRig

SEEN_S = 0.1  # ten polls


class IioRig(SourceRig):
    peer = "a made sysfs"
    promise = "newest value"
    limit = "it does not ask"
    without = {
        "half-open": "there is no connection",
        "flood": "it asks, for one value at a time",
        "credentials": "there are none",
    }

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.device = folder / "sys/bus/iio/devices/iio:device0"
        self.text = "0"

    def version(self) -> str | None:
        return f"on Linux {platform.release().split('-')[0]}" if platform.system() == "Linux" else None

    async def start(self) -> None:
        self.device.mkdir(parents=True)
        (self.device / "name").write_text("counter\n")
        self._hold(self.text)

    async def stop(self) -> None:
        shutil.rmtree(self.device, ignore_errors=True)

    def settings(self, port: int | None) -> str:
        return """type = "iio"
root = "sys"
every = "10 ms"
key = "id"
devices = { c = "counter" }
fields = { n = "in_count0" }"""

    def _hold(self, text: str) -> None:
        self.text = text
        if self.device.exists():
            (self.device / "new").write_text(text + "\n")
            os.replace(self.device / "new", self.device / "in_count0_raw")

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        for number in numbers:
            self._hold(str(number))
            await asyncio.sleep(SEEN_S)
        return list(numbers)

    async def garbage(self) -> int:
        self._hold("many")
        await asyncio.sleep(5 * SEEN_S)
        return 1
