"""Admission: a maximum of beams, first in first out; over HTTP, a search that waits in the queue."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import HANG, WORLD, Moody, chat, scripted_client, scripted_searcher

from vgs_ray.serve.admission import MAX_RETRY_S, Admission, Place
from vgs_ray.serve.errors import ApiError

STEPS = st.lists(st.integers(1, 12) | st.tuples(st.just("leave"), st.integers(0, 30)), max_size=60)


@given(STEPS, st.integers(1, 16), st.integers(0, 4))
def test_beams_are_limited_and_admitted_in_order(steps: list[Any], most: int, most_waiting: int) -> None:
    admission = Admission(most, most_waiting)
    here: list[Place] = []  # in the order of arrival
    for step in steps:
        if isinstance(step, int):
            full = admission.waiting == most_waiting
            if admission.running and (admission.waiting or admission.running + step > most) and full:
                with pytest.raises(ApiError, match="try again later"):
                    admission.take(step)
            else:
                here.append(admission.take(step))
        elif here:
            here.pop(step[1] % len(here)).__exit__(None, None, None)
        running = [place for place in here if place.admitted.is_set()]
        waiting = [place for place in here if not place.admitted.is_set()]
        assert admission.running == sum(place.beams for place in running)
        assert admission.running <= most or len(running) == 1
        assert admission.waiting == len(waiting) <= most_waiting
        if waiting:  # the first one in the queue does not fit
            assert running
            assert admission.running + waiting[0].beams > most
        assert 1 <= admission.retry_s() <= MAX_RETRY_S
    for place in here:
        place.__exit__(None, None, None)
    assert (admission.running, admission.waiting) == (0, 0)


def test_a_large_search_is_not_passed_by_small_ones() -> None:
    admission = Admission(10, 5)
    first, large, small = admission.take(6), admission.take(8), admission.take(1)
    assert [place.admitted.is_set() for place in (first, large, small)] == [True, False, False]
    first.__exit__(None, None, None)
    assert [place.admitted.is_set() for place in (large, small)] == [True, True]


@pytest.mark.parametrize("stream", [False, True])
async def test_searches_wait_in_the_queue_and_are_refused_when_it_is_full(stream: bool) -> None:
    policy = Moody(WORLD)
    async with scripted_client(scripted_searcher(policy), max_beams=8, max_waiting=2) as client:

        def post(problem: str, **search: Any) -> asyncio.Task[httpx.Response]:
            body = chat(problem, search=search, stream=stream)
            return asyncio.create_task(client.post("/v1/chat/completions", json=body))

        async def waiting(count: int) -> None:
            async with asyncio.timeout(5):
                while f"vgs_ray_searches_waiting {count}.0" not in (await client.get("/metrics")).text:
                    await asyncio.sleep(0.01)

        first = post(HANG)  # holds all beams
        while policy.started < 8:
            await asyncio.sleep(0.01)
        leaves, stays = post("3"), post("3", seed=1)
        await waiting(2)
        refused = await post("3")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 searches are waiting (at most 2)" in refused.json()["error"]["message"]
        leaves.cancel()
        await waiting(1)
        late = await post("3", deadline_s=0.05)
        assert "still in the queue after 0.05 s" in late.text
        assert late.status_code == (200 if stream else 504)
        scores = asyncio.create_task(client.post("/v1/score", json={"model": "scripted", "input": [[3]] * 8}))
        await waiting(2)
        assert policy.cancelled == 0
        first.cancel()
        answered = await asyncio.wait_for(stays, 5)
        assert answered.status_code == 200
        assert "boxed" in answered.text
        assert (await asyncio.wait_for(scores, 5)).status_code == 200
        text = (await client.get("/metrics")).text
        assert 'vgs_ray_searches_total{end="late"} 1.0' in text
        assert "vgs_ray_wait_seconds_count 5.0" in text
