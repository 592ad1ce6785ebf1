"""Policy and value replicas on Ray Serve: a search stays on one replica, and kills lose no search."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
from apart_endpoint import LIMIT_S, PROBLEMS, ask, ask_all, replica_processes
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from pipelines.serve import APPLICATION, build
from pipelines.serving.application import application, known_sizes
from pipelines.session import logs
from vgs_ray.config import Recipe
from vgs_ray.errors import UserError
from vgs_ray.models import RANDOM, model_path
from vgs_ray.search.flops import ModelSizes, model_size
from vgs_ray.search.model_size import NO_MODEL


def answers(replies: list[dict[str, Any]]) -> list[list[tuple[str | None, int]]]:
    """The parts of replies that do not depend on the replica. The last digits of values depend on the batch."""
    return [[(leaf["answer"], leaf["tokens"]) for leaf in reply["vgs_ray"]["leaves"]] for reply in replies]


@pytest.fixture(scope="module")
def first(apart_url: str) -> list[dict[str, Any]]:
    """Replies without kills."""
    return ask_all(apart_url)


@pytest.mark.timeout(600)
def test_engines_have_processes_of_their_own_and_searches_stick(first: list[dict[str, Any]]) -> None:
    assert len(replica_processes("policy")) == 2
    assert len(replica_processes("value")) == 1
    for reply in first:
        usage = reply["usage"]
        read = reply["vgs_ray"]["usage"]
        # If blocks were spread over both policies, each would have to forward half of the prefixes again.
        assert read["cached"] > usage["completion_tokens"]
        forwarded = read["generated"] + read["prefilled"]
        size = model_size(model_path("sandbox:ref"))
        assert reply["vgs_ray"]["flops"] > 2 * size.params * forwarded


@pytest.mark.timeout(600)
def test_rays_agent_has_the_metrics_of_all_search_replicas(first: list[dict[str, Any]]) -> None:
    """Must run before other tests send requests: it checks the totals of the endpoint."""
    deadline = time.monotonic() + 60
    while (now := agent_sums()).get("ray_vgs_ray_searches_totaldone", 0) < len(first):  # exported every few seconds
        assert time.monotonic() < deadline, now
        time.sleep(0.5)
    for kind in ("generated", "scored"):
        told = sum(reply["vgs_ray"]["usage"][kind] for reply in first)
        assert now[f"ray_vgs_ray_tokens_total{kind}"] == told
    assert now["ray_vgs_ray_beams_running"] == 0
    assert now["ray_vgs_ray_call_seconds_countpolicy"] == now["ray_vgs_ray_call_seconds_countvalue"] > 0


def agent_sums() -> dict[str, float]:
    """Sums over replicas, by name and label."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(url, trust_env=False).text):
        for sample in family.samples:
            if sample.labels.get("deployment") == "search" and sample.name.startswith("ray_vgs_ray"):
                name = sample.name + "".join(sample.labels.get(label, "") for label in ("end", "kind", "engine"))
                found[name] = found.get(name, 0) + sample.value
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux only")
def test_host_0_0_0_0_is_every_interface(apart_url: str) -> None:
    elsewhere = apart_url.replace("127.0.0.1", "127.0.0.2")
    assert httpx.get(f"{elsewhere}/models", trust_env=False).status_code == 200


def test_a_stop_string_ends_what_a_real_policy_writes(apart_url: str) -> None:
    def written(**more: Any) -> dict[str, Any]:
        body = {"model": "policy", "messages": [{"role": "user", "content": PROBLEMS[0]}], "temperature": 0, **more}
        reply = httpx.post(f"{apart_url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]

    whole = written()["message"]["reasoning_content"]
    middle = len(whole) // 2
    stop = whole[middle : middle + 5]
    cut = written(stop=stop)
    assert cut["finish_reason"] == "stop"
    assert cut["message"]["reasoning_content"] == whole[: whole.index(stop)].strip()
    assert cut["message"]["content"] == ""


def test_replicas_return_values_after_each_token(apart_url: str) -> None:
    def scores(**more: Any) -> list[list[float]]:
        body = {"model": "vgs", **more}
        reply = httpx.post(f"{apart_url}/score", json=body, timeout=LIMIT_S, trust_env=False)
        assert reply.status_code == 200, reply.text
        return [row["values"] for row in reply.json()["data"]]

    tokens = list(range(20, 60))
    [each] = scores(input=[tokens], every_token=True)
    assert len(each) == len(tokens)
    last = scores(input=[tokens[: at + 1] for at in (0, 20, 39)])
    assert [each[0], each[20], each[39]] == pytest.approx([value for [value] in last], abs=1e-5)
    assert scores(input=[tokens], every_token=True, from_token=38) == [pytest.approx(each[38:], abs=1e-5)]


def test_ids_beyond_the_vocabulary_are_refused_and_no_engine_ends(apart_url: str) -> None:
    before = {kind: {each.pid for each in replica_processes(kind)} for kind in ("policy", "value", "search")}
    for wrong in ([256], [236], [2**31 - 1], [20, 21, 4096], [-1]):
        for route, body in (
            ("score", {"input": [[20], wrong]}),
            ("completions", {"prompt": wrong}),
            ("completions", {"prompt": [wrong]}),
        ):
            reply = httpx.post(
                f"{apart_url}/{route}", json={"model": "policy", **body}, timeout=LIMIT_S, trust_env=False
            )
            assert reply.status_code == 400, (route, wrong, reply.text)
    ask(apart_url, PROBLEMS[0], 0)
    assert {kind: {each.pid for each in replica_processes(kind)} for kind in before} == before


def test_vllms_sampling_fields_reach_the_policy(apart_url: str) -> None:
    def written(**more: Any) -> str:
        body = {"model": "policy", "prompt": ["Work modulo 19. Start with 5."], "max_tokens": 24, "seed": 3, **more}
        reply = httpx.post(f"{apart_url}/completions", json=body, timeout=LIMIT_S, trust_env=False)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["text"]

    greedy, warm = written(temperature=0), {"temperature": 2.0, "top_p": 1.0}
    assert written(**warm) != greedy
    assert written(**warm, top_k=1) == written(**warm, min_p=1) == greedy
    assert written(temperature=0, repetition_penalty=50) != greedy


@pytest.mark.timeout(600)
async def test_the_ingress_serves_fifty_concurrent_official_clients(apart_url: str) -> None:
    async def streamed(client: openai.AsyncOpenAI, seed: int) -> tuple[str, int]:
        stream = await client.chat.completions.create(
            model="policy", messages=[{"role": "user", "content": PROBLEMS[seed % len(PROBLEMS)]}], seed=seed, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        thought = "".join(
            choice.delta.model_extra.get("reasoning_content") or "" for c in chunks for choice in c.choices
        )
        return thought, chunks[-1].usage.completion_tokens

    async with openai.AsyncOpenAI(base_url=apart_url, api_key="none", max_retries=0, timeout=LIMIT_S) as client:
        found = await asyncio.gather(*(streamed(client, seed) for seed in range(50)))
    assert all(thought and tokens > 1 for thought, tokens in found)


@pytest.mark.timeout(600)
def test_no_search_is_lost_when_replicas_are_killed(apart_url: str, first: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(ask_all, apart_url)
        time.sleep(0.3)
        for kind in ("policy", "value"):
            os.kill(replica_processes(kind)[0].pid, signal.SIGKILL)
        assert answers(again.result(timeout=LIMIT_S)) == answers(first)


@pytest.mark.timeout(600)
def test_the_id_of_an_error_leads_to_its_traceback_in_the_log(apart_url: str) -> None:
    """A score whose replica dies is not repeated."""
    body = {"model": "vgs", "input": [[20] * 500] * 64, "every_token": True}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{apart_url}/score", json=body, timeout=LIMIT_S, trust_env=False)
        time.sleep(0.5)  # the scores take seconds
        replica_processes("value")[0].kill()
        reply = asked.result(timeout=LIMIT_S)
    assert reply.status_code == 503
    [error_id] = re.findall(r"err-\w+", reply.json()["error"]["message"])
    [text] = [text for file in Path(logs()).glob("worker-*.err") if error_id in (text := file.read_text())]
    told = text[text.index(error_id) :]
    assert "Traceback (most recent call last)" in told
    assert "EngineDied: 1 replicas died during one call of score" in told
    ask(apart_url, PROBLEMS[0], 0)  # waits for the new replica


@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ["the client goes", "the deadline comes"])
def test_a_search_that_ends_early_frees_its_memory_within_a_second(apart_url: str, end: str) -> None:
    goes = end == "the client goes"
    search = {"budget": 128, "block": 1, "seed": 77, **({"events": True} if goes else {"deadline_s": 1.5})}
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEMS[0]}], "search": search, "stream": True}
    assert held() == (0, 0)  # also creates the handle, which takes a second
    took = []
    while len(took) < 3 and min(took, default=9.0) > 1.0:  # on a busy machine, a call to a replica can take as long
        with httpx.stream(
            "POST", f"{apart_url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False
        ) as reply:
            if goes:
                nodes = (line for line in reply.iter_lines() if "vgs_ray.node" in line)
                # Check at several blocks: at times, the value model has all of them.
                assert any(all(held()) for _ in islice(nodes, 20))
            else:
                assert any(all(held()) for _ in range(20))
                assert '"finish_reason": "length"' in reply.read().decode()
        ended = time.monotonic()
        while any(held()):
            assert time.monotonic() - ended < 5.0
        took.append(time.monotonic() - ended)
    assert min(took) < 1.0


def held() -> tuple[int, float]:
    """Unfinished sequences of the policy engines, and the used shares of their KV caches.

    Calls with many session ids reach both replicas.
    """
    handle = serve.get_deployment_handle("policy", APPLICATION)
    asked = [handle.options(method_name="load", session_id=str(name)).remote() for name in range(12)]
    sequences, shares = zip(*(each.result(timeout_s=LIMIT_S) for each in asked), strict=True)
    return sum(sequences), sum(shares)


def test_a_model_of_unknown_size_is_served_without_flops(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert known_sizes("sandbox:ref", str(tmp_path)) is None
    assert known_sizes("sandbox:ref", RANDOM) == ModelSizes(model_size(model_path("sandbox:ref")), NO_MODEL)


def test_the_application_of_a_config_file_is_checked(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="port"):
        build({"recipe": "sandbox", "port": "80"})
    with pytest.raises(UserError, match=r"run python -m pipelines\.train"):
        build({"recipe": "sandbox", "options": f"--root {tmp_path}"})
    held = replace(recipe, serve=replace(recipe.serve, layout="together"))
    assert application(held, "folder") != application(recipe, "folder")
