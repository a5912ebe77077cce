"""Of tests of sinks that deliver."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.01)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)
