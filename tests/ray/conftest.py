"""One Ray session for all files that need nothing but a local Ray: starting and ending one takes five seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import ray

from pipelines.session import ray_session


@pytest.fixture(scope="package")
def ray_sessions() -> Iterator[ExitStack]:
    with ExitStack() as sessions:
        yield sessions


@pytest.fixture(scope="module")
def local_ray(ray_sessions: ExitStack) -> None:
    """Opens the shared session, unless it is open."""
    if not ray.is_initialized():
        ray_sessions.enter_context(ray_session())


@pytest.fixture
def no_ray(ray_sessions: ExitStack) -> None:
    """Ends the shared session, for tests that connect to a cluster of their own."""
    ray_sessions.close()
