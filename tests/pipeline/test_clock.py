"""Times of arrival: the clock's where it can be trusted, and never falling where it cannot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import KNOWN_S, ArrivalClock, DroppingClock, VirtualClock
from pipeline.frame import SECOND

HOUR = 3600 * SECOND
NOW = (KNOWN_S + 1_000_000) * SECOND


def test_a_clock_that_was_never_set_is_unsure() -> None:
    clock = VirtualClock(5 * SECOND)
    arrivals = ArrivalClock(clock)
    assert arrivals.stamp() == 5 * SECOND
    assert arrivals.unsure(clock.wall())
    clock.jump(NOW)
    assert not arrivals.unsure(clock.wall())
    assert arrivals.stamp() == NOW + 5 * SECOND


def test_set_back_by_hours_times_go_on_at_half_the_pace() -> None:
    clock = VirtualClock(NOW)
    arrivals = ArrivalClock(clock)
    arrivals.stamp()
    clock.jump(-2 * HOUR)
    clock.advance(1 * HOUR)
    assert arrivals.unsure(clock.wall())
    assert arrivals.stamp() == NOW + HOUR // 2
    clock.advance(3 * HOUR)
    assert arrivals.stamp() == NOW + 2 * HOUR == clock.wall()
    assert not arrivals.unsure(clock.wall())


def test_a_restart_in_1970_goes_on_from_the_last_time() -> None:
    arrivals = ArrivalClock(VirtualClock(0))
    arrivals.last = NOW
    assert arrivals.stamp() == NOW
    assert arrivals.unsure(0)


@given(st.lists(st.tuples(st.integers(-3 * HOUR, 3 * HOUR), st.integers(0, HOUR)), max_size=30))
def test_they_never_fall_and_are_the_clocks_where_it_is_sure(moves: list[tuple[int, int]]) -> None:
    clock = VirtualClock(NOW)
    arrivals = ArrivalClock(clock)
    last = arrivals.stamp()
    for jump, passed in moves:
        clock.jump(jump)
        clock.advance(passed)
        sure = not arrivals.unsure(clock.wall())
        stamp = arrivals.stamp()
        assert stamp >= last
        if sure:
            assert stamp == clock.wall() // 1_000_000 * 1_000_000
        last = stamp


def test_a_clock_that_jumps_ahead_drops_nothing_for_an_hour() -> None:
    """Set right before then, it was as if nothing had been; else it counts, since the device may have been off for weeks."""
    clock, dropping = VirtualClock(1_800_000_000 * SECOND), DroppingClock()

    def says() -> int:
        return dropping.now(clock.wall(), clock.monotonic()) - 1_800_000_000 * SECOND

    clock.advance(SECOND)
    assert says() == SECOND
    clock.advance(5 * HOUR)  # nobody asked for a while
    assert says() == SECOND + 5 * HOUR
    clock.jump(1000 * HOUR)
    assert says() == SECOND + 5 * HOUR
    clock.advance(HOUR // 2)
    assert says() == SECOND + 5 * HOUR + HOUR // 2
    clock.jump(-1000 * HOUR)
    assert says() == SECOND + 5 * HOUR + HOUR // 2
    clock.jump(1000 * HOUR)
    says()
    clock.advance(HOUR - 1)
    assert says() < 10 * HOUR
    clock.advance(1)
    assert says() > 1000 * HOUR


def test_a_clock_that_is_set_back_is_followed_at_once() -> None:
    """It drops less, so there is nothing to wait for; coming back from there is a jump of its own."""
    clock, dropping = VirtualClock(1_800_000_000 * SECOND), DroppingClock()
    dropping.now(clock.wall(), clock.monotonic())
    clock.jump(-24 * HOUR)
    assert dropping.now(clock.wall(), clock.monotonic()) == clock.wall()


def test_over_a_restart_it_goes_on_from_what_it_said() -> None:
    """So killing the process does not make a wrong clock right."""
    clock, dropping = VirtualClock(1_800_000_000 * SECOND), DroppingClock()
    clock.advance(SECOND)
    said = dropping.now(clock.wall(), clock.monotonic())
    clock.jump(1000 * HOUR)
    again = DroppingClock()
    again.last = said
    assert again.now(clock.wall(), clock.monotonic()) == said
    clock.advance(HOUR)
    assert again.now(clock.wall(), clock.monotonic()) == clock.wall()
