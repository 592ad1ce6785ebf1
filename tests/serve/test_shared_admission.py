"""Several search replicas: they are added under load, share one admission, and one that dies loses no plain request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import scripted_server
from apart_endpoint import replica_processes
from fastapi import FastAPI
from ray import cloudpickle, serve
from scripted_server import HANG, SETTINGS, chat, scripted_searcher

from pipelines.serving import engine_replicas, shared_admission
from pipelines.serving.application import search_deployment
from pipelines.serving.shared_admission import AdmissionReplica, SharedAdmission, admission_application
from vgs_ray.config import Engine, Resources, Serve
from vgs_ray.serve.app import create_app

LIMIT_S = 120.0
SHARED = replace(
    SETTINGS, layout="together", resources=Resources(num_cpus=0.01, num_gpus=0.0), policy_engine=Engine(max_num_seqs=8),
    search_max_replicas=2, max_beams=8, max_waiting=4,
)  # fmt: skip


class ScriptedEndpoint:
    """Stands in for `application.Endpoint`."""

    def __init__(self, settings: Serve, admission: Any) -> None:
        self.settings, self.searcher = settings, scripted_searcher()
        self.admission = SharedAdmission(admission, serve.get_replica_context().replica_id.unique_id)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.searcher, self.settings, take=self.admission.take)

    async def check_health(self) -> None:
        self.admission.start()


@pytest.fixture
def url(apart_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An endpoint with one search replica, or two under load, each of which runs one search of 8 beams well."""
    monkeypatch.setattr(engine_replicas, "UPSCALE_S", 1.0)
    modules = (sys.modules[__name__], scripted_server)  # replicas cannot import a test
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    app = search_deployment(ScriptedEndpoint, SHARED).bind(SHARED, admission_application(SHARED))
    serve.run(app, name="shared", route_prefix="/shared")
    yield apart_url.replace("/v1", "/shared")
    serve.delete("shared")
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.1)


@pytest.mark.timeout(600)
async def test_two_search_replicas_are_one_endpoint(url: str) -> None:
    async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:

        def post(problem: str = "3") -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=chat(problem)))

        async def of_second() -> str:
            """Metrics of the second replica. The first one has four waiting searches."""
            async with asyncio.timeout(LIMIT_S):
                while "vgs_ray_searches_waiting 0.0" not in (text := (await client.get(f"{url}/metrics")).text):
                    await asyncio.sleep(0.1)
            return text

        def searches() -> list[Any]:
            return replica_processes("search", "shared")

        assert (await post()).status_code == 200
        [first] = searches()
        async with client.stream("POST", f"{url}/v1/chat/completions", json=chat(HANG, stream=True)) as hangs:
            lines = hangs.aiter_lines()
            assert (await anext(lines)).startswith("data: ")  # it has all beams, on the first replica
            waiting = [post() for _ in range(4)]
            await until(lambda: len(searches()) == 2)
            await of_second()  # HAProxy forwards to it
            for _ in range(12):
                reply = await post()
                assert reply.status_code == 429, reply.text
                assert "4 searches are waiting (at most 4)" in reply.json()["error"]["message"]
                assert int(reply.headers["Retry-After"]) >= 1
            refused = re.search(r'^vgs_ray_refused_requests_total{status="429"} (.+)$', await of_second(), re.MULTILINE)
            assert refused is not None
            assert float(refused[1]) >= 1, "the second replica, which has no searches, refused none"
            for each in waiting:
                each.cancel()
            await asyncio.sleep(3)  # until they have left the queue
            # HAProxy sends these to both replicas. The others began when it knew only the first one.
            waiting = [post() for _ in range(2)]
            await asyncio.sleep(2)
            os.kill(first.pid, signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):  # a stream that has begun is not repeated
                [line async for line in lines]
        # Those of the first one are sent to the second, and wait until the admission has forgotten the search of the dead one.
        replies = await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_S)
        assert [reply.status_code for reply in replies] == [200] * 2, [reply.text for reply in replies]


@pytest.mark.timeout(600)
async def test_a_place_takes_milliseconds(url: str) -> None:
    shared = SharedAdmission(serve.get_deployment_handle("admission", "shared"), "client")
    took = []
    for _ in range(200):
        began = time.perf_counter()
        with await shared.take(1):
            took.append(time.perf_counter() - began)
    print(f"a place took {1000 * statistics.median(took):.2f} ms in the median")
    assert min(took) < 0.01


async def test_places_of_a_search_replica_that_is_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = AdmissionReplica(8, 2)
    assert (await admission.take("dead", "a", 6)).position == 0
    assert (await admission.take("alive", "b", 6)).position == 1
    refused = await admission.take("dead", "c", 8), await admission.take("dead", "d", 1)
    assert refused[0].position == 2
    assert "try again later" in refused[1].refusal
    await admission.renew("alive", {}, ["b"])
    waits = asyncio.create_task(admission.wait("alive", "b"))
    monkeypatch.setattr(shared_admission, "FORGET_S", 0.05)
    await asyncio.sleep(0.1)
    assert not waits.done()
    await admission.renew("alive", {}, ["b"])
    await asyncio.wait_for(waits, 5)
    assert (admission.admission.running, admission.admission.waiting) == (6, 0)


async def test_a_new_admission_replica_learns_what_runs_and_a_lost_release_is_made_up() -> None:
    admission = AdmissionReplica(8, 2)
    await admission.renew("one", {"a": 6, "b": 6}, [])  # admitted while there was no admission replica
    assert admission.admission.running == 12
    await admission.take("one", "c", 4)  # queued, but its client did not wait for the answer
    await admission.renew("one", {"b": 6, "c": 4}, [])
    assert (admission.admission.running, admission.admission.waiting) == (10, 0)
    await admission.release("one", "b")
    await admission.release("one", "b")
    await admission.renew("one", {}, [])
    assert admission.admission.running == 0
    await admission.wait("one", "unknown")
