"""`iio`: sensors that the kernel of Linux has a driver for: temperature, humidity, pressure, light, voltage, acceleration."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Inbox, Settings, SourceContext
from pipeline.frame import Field, Schema
from pipeline.polling import PolledSource, Reading, Value, due_after
from pipeline.quantity import Duration, duration

log = logging.getLogger("headwater")

FOLDERS = ("bus/iio/devices", "class/hwmon")  # of sysfs
# What the kernel's unit is divided by: of an iio channel to °C, %, hPa, V, A, W; of a hwmon channel the same and J.
IIO_PER = {"temp": 1e3, "humidityrelative": 1e3, "pressure": 0.1, "voltage": 1e3, "current": 1e3, "power": 1e3}
HWMON_PER = {"temp": 1e3, "humidity": 1e3, "in": 1e3, "curr": 1e3, "power": 1e6, "energy": 1e6}
_CHANNEL = re.compile(r"[a-z][a-z0-9_-]*")
_NUMBERED = re.compile(r"(.+)#([1-9][0-9]*)")


class IioSettings(Settings, frozen=True, kw_only=True):
    devices: Annotated[
        dict[str, str],
        Meta(description='Keys, each with the name of its device, as "bme280"; the second of a name is "bme280#2".'),
    ]
    fields: Annotated[
        dict[str, str],
        Meta(description="Fields, each with its channel: the name of the file without _input or _raw, as in_temp."),
    ]
    every: Annotated[Duration, Meta(ge=10_000_000, description="How often each device is read.")] = duration("1 s")
    key: Annotated[str, Meta(min_length=1, description="What the key is called in a reading.")] = "sensor"
    timeout: Annotated[Duration, Meta(ge=10_000_000, description="A driver that takes longer is told.")] = duration(
        "5 s"
    )
    root: Annotated[Path, Meta(description="Where sysfs is.")] = Path("/sys")


class Iio(PolledSource):
    """Sensors on I2C, SPI, 1-Wire and GPIO, by the drivers of the kernel (industrial I/O, and hardware monitoring).

        [sources.climate]
        type = "iio"
        every = "2 s"
        devices = { greenhouse = "bme280", cellar = "dht11" }
        fields = { temperature = "in_temp", humidity = "in_humidityrelative", pressure = "in_pressure" }

    Each device gives a reading every `every`, dated by its arrival; a channel that it does not have is missing. The driver is
    loaded by the system, on a Raspberry Pi by a line in /boot/firmware/config.txt: dtoverlay=i2c-sensor,bme280 or
    dtoverlay=dht11,gpiopin=4. What there is: grep . /sys/bus/iio/devices/*/name /sys/class/hwmon/*/name
    Values are in °C, %, hPa, V, A, W and J; others in the kernel's unit (lux, m/s², rad/s, ohm, RPM). Where a driver gives raw
    numbers, its scale and offset are applied. `calibrate` converts further.
    Devices are read beside the loop and beside each other, so a slow one holds up nobody. One that is gone, or whose driver
    fails, is told on /health and once in NAME.invalid; it is looked for at each poll, under whatever number it comes back.
    At the limit: while the inbox is full nothing is read; polls that were missed are not made up for.
    In a test, fields that a row does not name are missing.
    """

    def __init__(self, settings: IioSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.schema = Schema(settings.key, {name: Field("float", True) for name in settings.fields})
        root = context.folder / settings.root
        self.sensors = [Sensor(key, name, settings.fields, root) for key, name in settings.devices.items()]
        if not settings.devices:
            context.problem("devices", 'name at least one: devices = { greenhouse = "bme280" }')
        if not settings.fields:
            context.problem("fields", 'name at least one: fields = { temperature = "in_temp" }')
        for name, channel in settings.fields.items():
            if not _CHANNEL.fullmatch(channel):
                context.problem(f"fields.{name}", f'"{channel}" is not a channel; write it as "in_temp" or "temp1"')
            if name in (settings.key, "time"):
                context.problem(f"fields.{name}", "is the key or the time; give it another name")

    def devices(self) -> Sequence[str]:
        return [sensor.key for sensor in self.sensors]

    async def run(self, inbox: Inbox, position: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for sensor in self.sensors:
                group.create_task(self._watch(sensor, inbox))

    async def _watch(self, sensor: Sensor, inbox: Inbox) -> None:
        """One device, for good. Each has its own pace: one that is slow holds up no other."""
        loop = asyncio.get_running_loop()
        due, every = loop.time(), self.settings.every.seconds
        while True:
            reading = await self._poll(sensor)
            if reading.values is not None or reading.trouble:
                await inbox.put(reading.payload())
            self.trouble = "; ".join(sensor.trouble for sensor in self.sensors if sensor.trouble)
            due = due_after(due, loop.time(), every)
            await asyncio.sleep(due - loop.time())

    async def _poll(self, sensor: Sensor) -> Reading:
        """A driver that hangs keeps its thread; the device is not asked again before that comes back."""
        if sensor.asked is None:
            sensor.asked = asyncio.ensure_future(asyncio.to_thread(sensor.read))
        done, _ = await asyncio.wait({sensor.asked}, timeout=self.settings.timeout.seconds)
        if not done:
            return self._told(sensor, None, [f"the driver has not answered within {self.settings.timeout}"])
        values, wrong = sensor.asked.result()
        sensor.asked = None
        return self._told(sensor, values, wrong)

    def _told(self, sensor: Sensor, values: Mapping[str, Value] | None, wrong: Sequence[str]) -> Reading:
        before, sensor.trouble = sensor.trouble, f"{sensor.key}: {', '.join(wrong)}" if wrong else ""
        begun = sensor.trouble if sensor.trouble != before else ""
        if begun:
            log.warning("%s: %s", self.context.name, begun)
        elif before and not sensor.trouble:
            log.warning("%s: %s is there again", self.context.name, sensor.key)
        return Reading(sensor.key, values, begun)


class Sensor:
    """One device of sysfs."""

    def __init__(self, key: str, name: str, channels: Mapping[str, str], root: Path) -> None:
        self.key = key
        numbered = _NUMBERED.fullmatch(name)
        self.name, self.nth = (numbered[1], int(numbered[2])) if numbered else (name, 1)
        self.channels = channels
        self.root = root
        self.folder: Path | None = None  # where it was last
        self.trouble = ""
        self.asked: asyncio.Future[tuple[Mapping[str, Value] | None, list[str]]] | None = None  # while it is read

    def read(self) -> tuple[Mapping[str, Value] | None, list[str]]:
        """Its values, and what is wrong. Called in another thread."""
        if self.folder is None or _text(self.folder / "name") != self.name:
            self.folder = self._find()
        if self.folder is None:
            return None, [self._not_there()]
        values: dict[str, Value] = {}
        wrong = []
        for field, channel in self.channels.items():
            try:
                values[field] = value_of(self.folder, channel)
            except OSError as error:
                wrong.append(f"{field}: {error.strerror or error}")
            except ValueError as error:
                wrong.append(f"{field}: {error}")
        if any(value is not None for value in values.values()):
            return values, wrong
        self.folder = self._find()
        if self.folder is None:  # it was unplugged meanwhile
            return None, [self._not_there()]
        return None, wrong or [f"{self.name} has none of the channels {', '.join(self.channels.values())}"]

    def _find(self) -> Path | None:
        found = [folder for folder in self._folders() if _text(folder / "name") == self.name]
        return found[self.nth - 1] if len(found) >= self.nth else None

    def _folders(self) -> list[Path]:
        """All devices, by their numbers."""
        found = []
        for folder in FOLDERS:
            devices = [path for path in (self.root / folder).glob("*[0-9]") if (path / "name").exists()]
            found += sorted(devices, key=lambda path: int(re.findall(r"\d+", path.name)[-1]))
        return found

    def _not_there(self) -> str:
        names = sorted({name for folder in self._folders() if (name := _text(folder / "name"))})
        which = self.name if self.nth == 1 else f"{self.name}#{self.nth}"
        return f"there is no device {which}; there are: {', '.join(names) or 'none'}"


def value_of(folder: Path, channel: str) -> float | None:
    """What a channel says now; None: there is no such. OSError, ValueError: its driver fails."""
    hwmon = folder.parent.name == "hwmon"
    kind = re.sub(r"^in_", "", channel) if not hwmon else channel
    per = (HWMON_PER if hwmon else IIO_PER).get(re.split(r"[^a-z]", kind)[0], 1.0)
    if (text := _text(folder / f"{channel}_input")) is not None:
        return float(text) / per
    if (text := _text(folder / f"{channel}_raw")) is None:
        return None
    return (float(text) + _shared(folder, channel, "offset", 0.0)) * _shared(folder, channel, "scale", 1.0) / per


def _shared(folder: Path, channel: str, what: str, default: float) -> float:
    """Scale or offset of a channel: its own, or that of its kind (`in_voltage_scale` of `in_voltage3`, of `in_accel_x`)."""
    kind = re.match(r"in_[a-z]+", channel)
    for name in (channel, kind[0] if kind else channel):
        if (text := _text(folder / f"{name}_{what}")) is not None:
            return float(text)
    return default


def _text(file: Path) -> str | None:
    """None: there is no such file."""
    try:
        return file.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
