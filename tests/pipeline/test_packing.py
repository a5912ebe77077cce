"""What was packed comes back to the last bit, whatever it was; and what sensors send takes little."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import packing
from pipeline.frame import NO_PROGRESS, Column, Frame, column
from pipeline.frame_bytes import encode

INTS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.one_of(INTS, st.integers(-5, 5), st.sampled_from([2**63 - 1, -(2**63), 0]))))
def test_whole_numbers(values: list[int]) -> None:
    x = np.array(values, np.int64)
    assert packing.unpack_ints(packing.pack_ints(x), len(x)).tolist() == values


@given(st.integers(-(2**40), 2**40), st.integers(-(2**20), 2**20), st.integers(0, 300))
def test_a_line_takes_a_few_bytes(first: int, step: int, n: int) -> None:
    x = first + step * np.arange(n, dtype=np.int64)
    packed = packing.pack_ints(x)
    assert len(packed) <= 20
    assert packing.unpack_ints(packed, n).tolist() == x.tolist()


@given(st.lists(INTS), st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]))
def test_times(values: list[int], unit: int) -> None:
    x = np.array(values, np.int64) // unit * unit
    assert packing.unpack_times(packing.pack_times(x), len(x)).tolist() == x.tolist()


FLOATS = st.one_of(
    st.floats(), st.integers(-(10**6), 10**6).map(lambda i: i / 100), st.sampled_from([0.0, -0.0, math.nan])
)


@given(st.lists(FLOATS))
def test_floats(values: list[float]) -> None:
    """NaN, infinities and the sign of zero as well."""
    v = np.array(values, np.float64)
    back = packing.unpack_floats(packing.pack_floats(v), len(v))
    assert back.tobytes() == v.tobytes()


def test_a_nan_keeps_its_bits() -> None:
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_1234))[0]
    v = np.array([1.5, odd], np.float64)
    assert packing.unpack_floats(packing.pack_floats(v), 2).tobytes() == v.tobytes()


@given(st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["on", "off"]))))
def test_texts(values: list[str]) -> None:
    assert packing.unpack_texts(packing.pack_texts(values), len(values)).tolist() == values


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False),
    "int": INTS,
    "bool": st.booleans(),
    "string": st.text(max_size=3),
    "time": INTS,
}


@given(st.data())
def test_columns(data: st.DataObject) -> None:
    """Of every kind, with and without missing values."""
    kind = data.draw(st.sampled_from(sorted(VALUES)))
    values = data.draw(st.lists(st.none() | VALUES[kind]))
    made = column(kind, values)
    name, packed = packing.pack_column(made)
    back = packing.unpack_column(name, packed, len(values))
    assert back.tolist() == made.tolist()
    assert (back.present is None) == (made.present is None)
    assert back.values.dtype == made.values.dtype
    assert (
        back.values.tolist() == made.values.tolist()
    )  # what lies under an absent value, too: equal Frames are equal bytes


@given(st.integers(0, 200), st.randoms(use_true_random=False))
def test_frames(n: int, chance: Any) -> None:
    """Small ones as `encode` makes them, large ones packed; rows, kinds and masks come back."""
    columns = {
        "value": column("float", [chance.choice([1.5, 2.25, None]) for _ in range(n)]),
        "door": column("bool", [chance.random() < 0.5 for _ in range(n)]),
        "mode": column("string", [chance.choice(["on", "off"]) for _ in range(n)]),
    }
    made = [np.array([chance.randrange(-(10**18), 10**18) for _ in range(n)], np.int64) for _ in range(2)]
    frame = Frame(made[0], np.arange(n, dtype=np.int32) % 5, made[1], columns, NO_PROGRESS)
    packed = packing.pack_frame(frame)
    assert encode(packing.unpack_frame(packed)) == encode(frame)
    assert n < packing.SMALL or len(packed) < len(encode(frame))


def test_blocks_as_one() -> None:
    assert packing.split(packing.join({"n": 3}, [b"a", b"", b"ccc"])) == ({"n": 3}, [b"a", b"", b"ccc"])


@pytest.mark.parametrize(("decimals", "most"), [(1, 1.3), (2, 1.9)])
def test_what_a_sensor_sends_takes_little(decimals: int, most: float) -> None:
    """A reading about each second, of a value that drifts: bytes a reading, time and value together."""
    random = np.random.default_rng(1)
    time = (1_790_000_000_000 + 1_000 * np.arange(3_000) + random.integers(0, 3, 3_000)) * 1_000_000
    value = Column(np.round(20 + random.normal(0, 0.02, 3_000).cumsum(), decimals))
    packed = packing.join(None, [packing.pack_times(time), packing.pack_column(value)[1]])
    assert len(packed) / 3_000 < most
