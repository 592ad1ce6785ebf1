"""Endpoints that the tests of this tier share. The engines of `apart_url` take half a minute to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apart_endpoint import apart_recipe
from scripted_server import Served, serving

from pipelines.serve import endpoint
from vgs_ray.config import Recipe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with engines come last, so that these take no time from the others."""
    items.sort(key=lambda item: "apart_url" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """An endpoint over scripted engines on a port."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return apart_recipe(tmp_path_factory.mktemp("value"))


@pytest.fixture(scope="session")
def apart_url(recipe: Recipe) -> Iterator[str]:
    """An endpoint on Ray Serve whose engines have replicas of their own."""
    with endpoint(recipe) as url:
        yield url
