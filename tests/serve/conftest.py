"""Servers that the tests of this tier share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted_server import Served, serving


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """An endpoint over scripted engines on a port."""
    with serving() as server:
        yield server
