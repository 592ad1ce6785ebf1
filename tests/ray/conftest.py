"""One Ray session for all files that only need a local Ray: to start and end one takes five seconds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import ray

from pipelines.session import ray_session

SESSIONS = ExitStack()


@pytest.fixture(scope="module")
def local_ray() -> None:
    """Open the shared session unless it is open."""
    if not ray.is_initialized():
        SESSIONS.enter_context(ray_session())


@pytest.fixture
def no_ray() -> None:
    """End the shared session, for tests that connect to a cluster of their own."""
    SESSIONS.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the shared session after the last test of this folder: it changes the environment."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        SESSIONS.close()
