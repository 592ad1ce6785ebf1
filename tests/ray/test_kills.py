"""Workers, raylets and drivers of a two-node cluster are killed while stages run: no row is lost or duplicated."""

from __future__ import annotations

import re

import pytest
from early import EARLY


@pytest.mark.timeout(700)
def test_killed_worker_raylet_and_driver_lose_and_duplicate_no_row() -> None:
    kills = EARLY.result("test_kills.py", timeout_s=600)
    assert kills.code == 0, kills.output
    assert set(re.findall(r"killed a (\w+)", kills.output)) == {"worker", "raylet", "driver"}
    assert "0 rows are wrong" in kills.output
