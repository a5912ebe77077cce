"""Parts that tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution in `plugin/` is installed: components by entry points."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "plugin")
