"""Sensors of the kernel, on a made sysfs: as the drivers of a BME280, a DHT11, an ADC and hwmon lay out their files."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import settings
from pipeline.component import Inbox, Payload, SourceContext
from pipeline.config import loads
from pipeline.frame import KeyTable
from pipeline.sources.iio import Iio, IioSettings, value_of
from tests.waiting import eventually

BME280 = {
    "name": "bme280",
    "in_temp_input": "21530",
    "in_humidityrelative_input": "48213",
    "in_pressure_input": "101.325",
}
DHT11 = {"name": "dht11", "in_temp_input": "19000", "in_humidityrelative_input": "61000"}
FIELDS = {"temperature": "in_temp", "humidity": "in_humidityrelative", "pressure": "in_pressure"}


def put(root: Path, device: str, files: dict[str, str]) -> Path:
    folder = root / ("class/hwmon" if device.startswith("hwmon") else "bus/iio/devices") / device
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    return folder


class Taken(Inbox):
    def __init__(self) -> None:
        self.payloads: list[Payload] = []

    def offer(self, payload: Payload) -> bool:
        self.payloads.append(payload)
        return True

    async def put(self, payload: Payload) -> None:
        self.offer(payload)

    async def taken(self) -> None: ...
    def end(self) -> None: ...


class Rows:
    def __init__(self, made: Iio) -> None:
        self.made = made
        self.inbox = Taken()

    def of(self, key: str) -> list[dict[str, Any]]:
        if not self.inbox.payloads:
            return []
        decoded = self.made.decode(self.inbox.payloads)
        columns = {name: c.tolist() for name, c in decoded.columns.items()}
        return [{n: c[i] for n, c in columns.items()} for i, k in enumerate(decoded.keys) if k == key]

    def refused(self) -> list[str]:
        return [r.reason for r in self.made.decode(self.inbox.payloads).refused]

    async def more(self, key: str, count: int = 1) -> dict[str, Any]:
        before = len(self.of(key))
        await eventually(lambda: len(self.of(key)) >= before + count)
        return self.of(key)[-1]


def source(root: Path, **given: Any) -> tuple[Iio, list[tuple[str, str]]]:
    base = {"devices": {"greenhouse": "bme280"}, "fields": FIELDS, "every": "20 ms", "root": str(root)}
    read = settings.read(IioSettings, {**base, **given})
    assert read.found == []
    context = SourceContext("climate", KeyTable())
    return Iio(read.settings, context), context.problems


@asynccontextmanager
async def running(root: Path, **given: Any) -> AsyncIterator[Rows]:
    made, problems = source(root, **given)
    assert problems == []
    rows = Rows(made)
    task = asyncio.create_task(made.run(rows.inbox, None))
    try:
        yield rows
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_device_gives_readings(tmp_path: Path) -> None:
    """In °C, % and hPa; a channel that a device does not have is missing."""
    bme = put(tmp_path, "iio:device0", BME280)
    put(tmp_path, "iio:device1", DHT11)
    async with running(tmp_path, devices={"greenhouse": "bme280", "cellar": "dht11"}) as rows:
        assert await rows.more("greenhouse") == {"temperature": 21.53, "humidity": 48.213, "pressure": 1013.25}
        assert await rows.more("cellar") == {"temperature": 19.0, "humidity": 61.0, "pressure": None}
        (bme / "in_temp_input").write_text("-500\n")
        await rows.more("greenhouse")
        assert (await rows.more("greenhouse"))["temperature"] == -0.5
        assert rows.made.trouble == ""


async def test_a_device_that_is_gone_is_told_and_comes_back(tmp_path: Path) -> None:
    """By name, once in NAME.invalid; under whatever number it comes back; the others go on."""
    first = put(tmp_path, "iio:device0", BME280)
    put(tmp_path, "iio:device1", DHT11)
    async with running(tmp_path, devices={"greenhouse": "bme280", "cellar": "dht11"}) as rows:
        await rows.more("greenhouse")
        shutil.rmtree(first)
        said = "greenhouse: there is no device bme280; there are: dht11"
        await eventually(lambda: rows.made.trouble == said)
        had = len(rows.of("greenhouse"))
        await rows.more("cellar", 3)
        assert len(rows.of("greenhouse")) == had
        assert rows.refused() == [said]
        put(tmp_path, "iio:device7", BME280)
        await rows.more("greenhouse")
        await eventually(lambda: rows.made.trouble == "")


def test_a_device_that_goes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as gone, not as one without channels."""
    folder = put(tmp_path, "iio:device0", BME280)
    monkeypatch.setattr("pipeline.sources.iio.value_of", lambda *_: shutil.rmtree(folder, ignore_errors=True))
    made, _ = source(tmp_path)
    assert made.sensors[0].read() == (None, ["there is no device bme280; there are: none"])


async def test_a_number_that_another_device_takes_is_not_mistaken(tmp_path: Path) -> None:
    """After a restart of the bus the order may be another."""
    put(tmp_path, "iio:device0", BME280)
    async with running(tmp_path) as rows:
        await rows.more("greenhouse")
        put(tmp_path, "iio:device1", {**BME280, "in_temp_input": "30000"})
        put(tmp_path, "iio:device0", DHT11)
        await eventually(lambda: rows.of("greenhouse")[-1]["temperature"] == 30.0)
        assert 19.0 not in [row["temperature"] for row in rows.of("greenhouse")]


async def test_the_second_of_a_name(tmp_path: Path) -> None:
    """By the numbers of the devices, the tenth behind the second."""
    put(tmp_path, "iio:device2", {**DHT11, "in_temp_input": "2000"})
    put(tmp_path, "iio:device10", {**DHT11, "in_temp_input": "10000"})
    async with running(tmp_path, devices={"a": "dht11", "b": "dht11#2", "c": "dht11#3"}) as rows:
        assert (await rows.more("a"))["temperature"] == 2.0
        assert (await rows.more("b"))["temperature"] == 10.0
        await eventually(lambda: "c: there is no device dht11#3" in rows.made.trouble)


async def test_a_driver_that_fails_costs_only_its_field(tmp_path: Path) -> None:
    """As a DHT11 does now and then; noise in a file, too."""
    folder = put(tmp_path, "iio:device0", BME280)
    (folder / "in_temp_input").unlink()
    (folder / "in_temp_input").mkdir()  # reading a folder fails as a driver does, with an error of the system
    async with running(tmp_path) as rows:
        assert await rows.more("greenhouse") == {"temperature": None, "humidity": 48.213, "pressure": 1013.25}
        assert rows.made.trouble == "greenhouse: temperature: Is a directory"
        (folder / "new").write_text("nothing\n")
        (folder / "new").replace(
            folder / "in_humidityrelative_input"
        )  # or else it is empty for a moment, which is told
        await eventually(lambda: "humidity: could not convert" in rows.made.trouble)
        await eventually(lambda: len(rows.refused()) == 2)
        assert await rows.more("greenhouse") == {"temperature": None, "humidity": None, "pressure": 1013.25}


async def test_a_device_without_any_of_the_channels(tmp_path: Path) -> None:
    put(tmp_path, "iio:device0", {"name": "bme280", "in_light_input": "1"})
    async with running(tmp_path) as rows:
        await eventually(lambda: rows.made.trouble)
        assert rows.made.trouble.startswith("greenhouse: bme280 has none of the channels in_temp, in_humid")
        assert rows.of("greenhouse") == []


async def test_a_driver_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """It is told, and not asked again before it comes back: threads do not pile up. (A pipe hangs as a driver does.)"""
    folder = put(tmp_path, "iio:device0", DHT11)
    (folder / "in_temp_input").unlink()
    os.mkfifo(folder / "in_temp_input")
    put(tmp_path, "iio:device1", BME280)
    devices = {"greenhouse": "bme280", "cellar": "dht11"}
    async with running(tmp_path, devices=devices, timeout="50 ms") as rows:
        try:
            await eventually(lambda: rows.made.trouble == "cellar: the driver has not answered within 50 ms")
            await rows.more("greenhouse", 10)
            assert rows.of("cellar") == []
        finally:
            with (folder / "in_temp_input").open("w") as pipe:  # there is one reader, and it gets this
                (folder / "in_temp_input").unlink()
                put(tmp_path, "iio:device0", DHT11)
                pipe.write("18000\n")
        await rows.more("cellar", 2)
        assert [row["temperature"] for row in rows.of("cellar")][:2] == [18.0, 19.0]
        await eventually(lambda: rows.made.trouble == "")


@pytest.mark.parametrize(
    ("device", "files", "channel", "value"),
    [
        ("iio:device0", {"in_temp_raw": "2000", "in_temp_scale": "10", "in_temp_offset": "150"}, "in_temp", 21.5),
        ("iio:device0", {"in_voltage3_raw": "1000", "in_voltage_scale": "1.25"}, "in_voltage3", 1.25),
        (
            "iio:device0",
            {"in_voltage3_raw": "4", "in_voltage3_scale": "500", "in_voltage_scale": "1"},
            "in_voltage3",
            2.0,
        ),
        ("iio:device0", {"in_accel_x_raw": "-200", "in_accel_scale": "0.5"}, "in_accel_x", -100.0),
        ("iio:device0", {"in_temp_object_raw": "50", "in_temp_scale": "20"}, "in_temp_object", 1.0),
        ("iio:device0", {"in_illuminance_input": "320.5"}, "in_illuminance", 320.5),
        ("iio:device0", {"in_proximity_raw": "17"}, "in_proximity", 17.0),
        ("iio:device0", {"in_temp_input": "1", "in_temp_raw": "9"}, "in_temp", 0.001),
        ("iio:device0", {}, "in_temp", None),
        ("hwmon3", {"temp1_input": "48300"}, "temp1", 48.3),
        ("hwmon3", {"in1_input": "3300"}, "in1", 3.3),
        ("hwmon3", {"power1_input": "2500000"}, "power1", 2.5),
        ("hwmon3", {"fan1_input": "1200"}, "fan1", 1200.0),
        ("hwmon3", {"humidity1_input": "45000"}, "humidity1", 45.0),
    ],
)
def test_channels_and_units(
    tmp_path: Path, device: str, files: dict[str, str], channel: str, value: float | None
) -> None:
    assert value_of(put(tmp_path, device, files), channel) == value


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"devices": {}}, ("devices", "name at least one")),
        ({"fields": {}}, ("fields", "name at least one")),
        ({"fields": {"t": "../../secret"}}, ("fields.t", "is not a channel")),
        ({"fields": {"sensor": "in_temp"}}, ("fields.sensor", "give it another name")),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, given: dict[str, Any], problem: tuple[str, str]) -> None:
    _, problems = source(tmp_path, **given)
    assert any(setting == problem[0] and problem[1] in text for setting, text in problems), problems


def test_a_test_block_gives_readings(tmp_path: Path) -> None:
    made, _ = source(tmp_path)
    payload = made.given({"sensor": "cellar", "humidity": 50.0})
    assert payload is not None
    decoded = made.decode([payload])
    assert (list(decoded.keys), decoded.columns["humidity"].tolist()) == (["cellar"], [50.0])
    assert decoded.columns["temperature"].tolist() == [None]


def test_the_example_of_the_docstring_is_a_good_source(tmp_path: Path) -> None:
    doc = (Iio.__doc__ or "").split("\n\n", 1)[1].split("\n    Each device", 1)[0]
    text = '[pipeline]\nname = "p"\n' + "\n".join(line.strip() for line in doc.splitlines())
    assert loads(text, tmp_path / "pipeline.toml").problems == []
