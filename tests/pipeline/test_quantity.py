"""Durations, sizes and secrets as they stand in a pipeline file."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quantity import Duration, Secret, Size, convert, duration, size

UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500 ms", 500 * 10**6),
        ("10 s", 10**10),
        ("10s", 10**10),
        ("  2   min ", 120 * 10**9),
        ("1 H", 3600 * 10**9),
        ("7 d", 7 * 86400 * 10**9),
        ("0 s", 0),
        ("0.1 s", 10**8),
        ("3 μs", 3000),  # the Greek letter, which keyboards give, and not the micro sign
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert duration(text) == ns


@pytest.mark.parametrize(
    ("text", "count"), [("100 MB", 10**8), ("64 MiB", 2**26), ("1.5kb", 1500), ("0 B", 0), ("2 TB", 2 * 10**12)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@given(st.decimals(0, 10_000, places=6), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_exact(number: Decimal, unit: str) -> None:
    """To the ns, whatever floating point makes of the number."""
    assert duration(f"{number:f} {unit}") == int((number * UNITS[unit]).quantize(Decimal(1), ROUND_HALF_UP))


@given(st.integers(0, 2**62 - 1))
def test_what_is_shown_is_read_back(count: int) -> None:
    assert duration(str(Duration(count))) == count
    assert size(str(Size(count))) == count


def test_it_is_shown_in_the_unit_in_which_people_think() -> None:
    assert [str(duration(t)) for t in ("90 s", "120 s", "36 h", "0.5 s", "0 s")] == [
        "90 s",
        "2 min",
        "36 h",
        "500 ms",
        "0 s",
    ]
    assert [str(size(t)) for t in ("100 MB", "64 MiB", "0 B", "1500 B")] == ["100 MB", "64 MiB", "0 B", "1500 B"]
    assert repr(duration("10 s")) == "Duration('10 s')"


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1 s", "1,5 s", "1 e3 s", "10 s s", "\u0661 s", "nan s", "10 parsecs"]
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it as"):
        duration(text)


@pytest.mark.parametrize(("text", "meant"), [("5 m", "5 min"), ("10 sec", "10 s"), ("10", "10 s"), ("2 hours", "2 h")])
def test_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf'did you mean "{meant}"\?'):
        duration(text)


@pytest.mark.parametrize("text", ["1000000 d", "9" * 40 + " s", "0." + "9" * 6000 + " s"])
def test_too_much(text: str) -> None:
    """For 64 bits, or for Python to read."""
    with pytest.raises(ValueError, match="is too much"):
        duration(text)


def test_a_secret_hides_in_every_form() -> None:
    """Until it is asked for, and json cannot write it at all."""
    secret = Secret("hush")
    assert secret.reveal() == "hush"
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", str([secret]), str({"token": secret})]
    assert "hush" not in "".join(shown)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        secret + "x"  # type: ignore[operator]


def test_secrets_compare() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert (bool(Secret("")), bool(Secret("a"))) == (False, True)


def test_a_mistyped_secret_is_not_echoed() -> None:
    with pytest.raises(ValueError, match=r"^expected text$"):
        convert(Secret, 12345)


def test_settings_may_use_them() -> None:
    assert (convert(Duration, "1 s"), convert(Size, "1 kB"), convert(Secret, "a")) == (10**9, 1000, Secret("a"))
    with pytest.raises(ValueError, match='such as "10 s"'):
        convert(Duration, 10)
    with pytest.raises(NotImplementedError):
        convert(complex, 1)
