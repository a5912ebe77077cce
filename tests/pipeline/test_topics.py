"""Topics of MQTT: parts that name something, filters, and messages as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topics import TopicPart, made_up, opened, sealed, wrong_filter


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("xyz")), min_size=1, max_size=3, unique_by=lambda p: p[0])
)
def test_a_topic_that_is_made_up_has_the_parts(named: list[tuple[int, str]]) -> None:
    parts = {TopicPart(f"topic[{level}]"): text for level, text in named}
    for part, text in parts.items():
        assert part.of(made_up(parts)) == text


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("sensors/+/reading", ""),
        ("#", ""),
        ("+", ""),
        ("/", ""),
        ("a//b", ""),
        ("sensors/#", ""),
        ("$share/group/sensors/#", ""),
        ("$SYS/broker/load/#", ""),
        ("", "is empty"),
        ("$share/group", "is no shared subscription"),
        ("$share//a", "is no shared subscription"),
        ("$share/g+/a", "is no shared subscription"),
        ("$share/g/", "is empty"),
        ("a/#/b", 'has a "#"'),
        ("a#", 'has a "#"'),
        ("a/b+/c", 'has a "+" within'),
        ("sensors/*/reading", 'has a "*" in it, which is no wildcard'),
        ("a\0", "is longer"),
        ("é" * 40_000, "is longer"),
    ],
)
def test_a_wrong_topic_filter_is_told(topic: str, said: str) -> None:
    assert wrong_filter(topic).startswith(said)
    assert bool(wrong_filter(topic)) is bool(said)


@given(st.text(), st.binary(), st.booleans())
def test_a_message_as_text_can_be_opened_again(topic: str, payload: bytes, whole: bool) -> None:
    assert opened(sealed(topic, payload, whole=whole)) == ((topic, payload) if whole else None)


@given(st.binary())
def test_any_other_text_is_a_payload_without_a_topic(text: bytes) -> None:
    assert opened(text) == ("", text)
