"""Policy replicas grow with the beams in flight, not with the requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from load import sandbox_endpoint
from test_serve_replicas import PROBLEMS, ask, replicas

from pipelines.serve import endpoint

PATIENCE_S = 180.0


@pytest.mark.timeout(400)
def test_a_second_policy_starts_while_one_search_has_more_beams_than_one_engine_batches(tmp_path: Path) -> None:
    growing = ("--serve.policy-engine.max-num-seqs", "4", "--serve.policy-max-replicas", "2")
    with endpoint(sandbox_endpoint(tmp_path, "--serve.layout", "apart", *growing)) as url:
        assert len(replicas("policy")) == 1
        with one_search_at_a_time(url) as done:
            began = time.monotonic()
            while len(replicas("policy")) < 2:
                assert time.monotonic() - began < PATIENCE_S, "no second policy"
                time.sleep(0.5)
        assert done
        assert len(replicas("value")) == 1
        # With two of them, searches go on.
        assert ask(url, PROBLEMS[0], 0)["vgs_ray"]["leaves"]


@contextmanager
def one_search_at_a_time(url: str) -> Iterator[list[int]]:
    """Searches of 8 beams, one after the other, until the end of the block; their seeds as they are answered."""
    done: list[int] = []
    failed: list[Exception] = []
    ended = threading.Event()

    def search() -> None:
        try:
            while not ended.is_set():
                ask(url, PROBLEMS[len(done) % len(PROBLEMS)], len(done))
                done.append(len(done))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()
    assert not failed, failed
