"""One Ray session for all files that only need a local Ray: to start and end one takes five seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray
from s3_server import BUCKET, S3Server, reach
from upath import UPath

from pipelines.session import ray_session
from vgs_ray.data.storage import storage_path

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


@pytest.fixture(scope="module")
def no_session() -> None:
    """End the shared session, for modules that have a session of their own."""
    SESSIONS.close()


@pytest.fixture(scope="module")
def s3_ray(no_session: None, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UPath]:
    """A Ray session of the module whose workers reach the S3 server. Gives an empty folder on it."""
    with reach(s3.endpoint), ray_session():
        yield storage_path(f"s3://{BUCKET}/{tmp_path_factory.mktemp('s3_ray').name}")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the shared session after the last test of this folder: it changes the environment."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        SESSIONS.close()
