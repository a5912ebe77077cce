"""What was decoded in several goes is as if it had been decoded in one."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clock import ArrivalClock, VirtualClock
from pipeline.component import Decoded, Payload, SourceContext
from pipeline.frame import KeyTable
from pipeline.inbox import BoundedInbox, Order
from pipeline.intake import Intake
from pipeline.sources.http import Http, HttpSettings


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_payload_that_breaks_the_codec_costs_no_other_one(timed: bool, bad: int) -> None:
    """Wherever it stands, and whether readings bring their time or have that of their arrival."""
    keys = KeyTable()
    source = Http(
        HttpSettings(key="id", fields={"value": "float"}, time="t" if timed else None), SourceContext("in", keys)
    )
    decode = source.decode

    def breaking(payloads: list[Payload]) -> Decoded:
        if any(payload.data == b"bad" for payload in payloads):
            raise ZeroDivisionError
        return decode(payloads)

    source.decode = breaking  # type: ignore[assignment, method-assign]
    inbox = BoundedInbox(Order(), ArrivalClock(VirtualClock(10**18)), lambda: None)
    for i in range(3):
        data = b"bad" if i == bad else b'{"id": "a", "value": %d, "t": 1}' % i
        assert inbox.offer(Payload(data, len(data)))
    arrived = Intake("in", source, inbox).decode(inbox.take(), keys, 10**18, 2 * 10**18)
    assert arrived.columns["value"].tolist() == [float(i) for i in range(3) if i != bad]
    assert len(arrived.time) == 2
    assert arrived.counts.tolist() == [int(i != bad) for i in range(3)]
    assert [(r.payload, "ZeroDivisionError" in r.reason) for r in arrived.refused] == [(bad, True)]
    assert np.array_equal(arrived.time, [10**9] * 2) == timed
