"""Each connector keeps the contract (`contract.py`) with its real peer; one whose peer cannot be had is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.connectors import contract
from tests.connectors.world import names, rig_class


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in contract.CHECKS for name in names(kind)])
async def test_it_keeps_the_contract(kind: str, name: str, tmp_path: Path) -> None:
    rig = rig_class(kind, name)(tmp_path, 0)
    if rig.version() is None:
        pytest.skip(f"{rig.peer} is not there")
    assert len(await contract.hold(kind, name, tmp_path)) >= 3
