"""The prometheus sink against a real Prometheus: series, order, what is refused, what comes twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snappy as library
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Batch, SinkContext
from pipeline.delivering import BatchSettings
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Duration, Secret
from pipeline.remote_write import snappy, varint
from sinks.prometheus import Prometheus, PrometheusSettings
from tests.peers import prometheus
from tests.peers.prometheus import PASSWORD, USER
from tests.sinks.rig import rig

FIELDS = {"value": Field("float", True), "on": Field("bool"), "mode": Field("string", True), "since": Field("time")}
SCHEMAS = {"readings": Schema("id", FIELDS)}
KEYS = ["a", 'b "é"']


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[prometheus.Prometheus]:
    if prometheus.version() is None:
        pytest.skip("Prometheus is not there")
    made = prometheus.Prometheus(tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def sink(url: str, **more: Any) -> Prometheus:
    context = SinkContext("metrics", SCHEMAS, KeyTable(KEYS))
    given: dict[str, Any] = {"user": USER, "password": Secret(PASSWORD), **more}
    given = {"batch": BatchSettings(rows=100, wait=Duration(0)), **given}
    made = Prometheus(PrometheusSettings(url=url + "/api/v1/write", **given), context)
    assert context.problems == []
    return made


def now_s() -> int:
    return int(time.time()) - 60  # Prometheus takes what is about as old as its clock


def readings(start_s: int, *values: float | None, key: int = 0, mode: str | None = None) -> Frame:
    n = np.arange(len(values), dtype=np.int64)
    columns = {
        "value": column("float", values),
        "on": column("bool", [True] * len(n)),
        "mode": column("string", [mode] * len(n)),
        "since": column("time", [0] * len(n)),
    }
    return Frame((start_s + n) * SECOND, np.full(len(n), key, np.int32), n, columns, NO_PROGRESS)


async def test_numbers_become_samples(tmp_path: Path, server: prometheus.Prometheus) -> None:
    """A series for each number and key, under its labels; NaN and infinity are values, what is missing is no sample."""
    at = now_s()
    more = {"labels": {"site": "1"}, "label_fields": ("mode",), "metric": "hw:{stream}_{field}"}
    async with rig(tmp_path, sink(server.url, **more)) as r:
        await r.put("readings", readings(at, 1.5, None, float("nan"), float("inf"), 0.1, mode="auto"))
        await r.put("readings", readings(at, -3, key=1))
        await r.until(sent=6, waiting=0)
    assert await server.samples("hw:readings_value") == {
        (("__name__", "hw:readings_value"), ("id", "a"), ("mode", "auto"), ("site", "1")): [
            (at, "1.5"),
            (at + 2, "NaN"),
            (at + 3, "+Inf"),
            (at + 4, "0.1"),
        ],
        (("__name__", "hw:readings_value"), ("id", KEYS[1]), ("site", "1")): [(at, "-3")],
    }
    ons = await server.samples("hw:readings_on")
    assert sorted(len(samples) for samples in ons.values()) == [1, 5]
    assert await server.samples('{__name__=~"hw:readings_(mode|since|time)"}') == {}


async def test_a_row_out_of_order_costs_only_itself(tmp_path: Path, server: prometheus.Prometheus) -> None:
    """Prometheus turns the whole request away; the late row alone becomes a dead letter, with its words."""
    at = now_s()
    async with rig(tmp_path, sink(server.url)) as r:
        await r.put("readings", readings(at, 1))
        await r.until(sent=1)
        late = readings(at - 5, 7)
        both = [late, readings(at + 1, 2, 3), readings(at + 1, 4, key=1)]
        for frame in both:
            await r.put("readings", frame)
        await r.until(sent=4, failed=1, waiting=0)
        ((reason, row),) = await r.letters()
    assert "out of order" in reason
    assert row["value"] == 7
    values = await server.samples("readings_value")
    assert sorted(value for samples in values.values() for _, value in samples) == ["1", "2", "3", "4"]


async def test_a_batch_whose_answer_was_lost_makes_no_dead_letters(server: prometheus.Prometheus) -> None:
    """Its samples are older than those that are there: theirs. At the first try they would be refused."""
    made = sink(server.url)
    batch = Batch("k", [("readings", readings(now_s(), 1, 2, 3))], 1)
    assert (await made.deliver(batch)).rejected == {}
    batch.attempt = 2
    assert (await made.deliver(batch)).rejected == {}
    batch.attempt, batch.resumed = 1, True
    assert (await made.deliver(batch)).rejected == {}
    batch.resumed = False
    assert list((await made.deliver(batch)).rejected) == [0, 1]
    await made.close()
    (samples,) = (await server.samples("readings_value")).values()
    assert [value for _, value in samples] == ["1", "2", "3"]


async def test_of_two_within_a_millisecond_the_later_stays(server: prometheus.Prometheus) -> None:
    made = sink(server.url)
    frame = readings(now_s(), 1, 2)
    twice = Frame(np.full(2, frame.time[0]), frame.key, frame.seq, frame.columns, NO_PROGRESS)
    assert (await made.deliver(Batch("k", [("readings", twice)], 1))).rejected == {}
    await made.close()
    ((sample,),) = (await server.samples("readings_value")).values()
    assert sample[1] == "2"


async def test_what_has_no_number_is_nothing_to_send(server: prometheus.Prometheus) -> None:
    """And costs no request."""
    made = sink("http://127.0.0.1:1")
    schema = {"texts": Schema("id", {"mode": Field("string")})}
    made.context.inputs = schema
    one = np.zeros(1, np.int64)
    frame = Frame(one, one.astype(np.int32), one, {"mode": column("string", ["x"])}, NO_PROGRESS)
    assert (await made.deliver(Batch("k", [("texts", frame)], 1))).delivered


async def test_it_comes_back(tmp_path: Path, server: prometheus.Prometheus) -> None:
    """What an outage left behind comes in order: nothing new overtakes it."""
    at = now_s()
    async with rig(tmp_path, sink(server.url)) as r:
        assert r.sink.buffer is not None
        assert r.sink.buffer.in_order
        await server.stop()
        for i in range(5):
            await r.put("readings", readings(at + i, i))
        await r.until(state="retrying")
        await server.start()
        await r.put("readings", readings(at + 5, 5))
        await r.until(sent=6, failed=0, waiting=0)
    (samples,) = (await server.samples("readings_value")).values()
    assert [value for _, value in samples] == list("012345")


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1000))
def test_anybody_can_read_the_compressed_form(data: bytes, times: int) -> None:
    """Google's own library does."""
    assert library.uncompress(snappy(data * times)) == data * times


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_varint_is_read_back(number: int) -> None:
    read = 0
    for i, byte in enumerate(varint(number)):
        read |= (byte & 0x7F) << 7 * i
    assert read == number % 2**64


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"url": "x"}, "url"),
        ({"metric": "{steam}"}, "metric"),
        ({"labels": {"a-b": "x"}}, "labels.a-b"),
        ({"labels": {"__x": "x"}}, "labels.__x"),
        ({"label_fields": ("value",)}, "label_fields"),
    ],
)
def test_wrong_settings(given: dict[str, Any], setting: str) -> None:
    context = SinkContext("metrics", SCHEMAS, KeyTable())
    Prometheus(PrometheusSettings(**{"url": "http://x/", **given}), context)
    assert [where for where, _ in context.problems] == [setting]
