"""An endpoint whose policy has a value head: one engine samples blocks and scores them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
import torch
from apart_endpoint import PROBLEMS, ask
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import running
from transformers import AutoModelForCausalLM

from pipelines.recipes import sandbox
from pipelines.serving.application import build_searcher, engine_applications
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.engines import build_engines
from vgs_ray.models import OWN_HEAD
from vgs_ray.search.flops import model_size
from vgs_ray.serve.app import create_app
from vgs_ray.value.policy_value import PolicyValueModel


@pytest.fixture(scope="module")
def headed(headed_policy: str) -> Recipe:
    base = sandbox()
    unused = replace(base.serve.value_engine, max_model_len=8)
    serve = replace(base.serve, value_model=OWN_HEAD, value_engine=unused)
    recipe = replace(base, evaluate=replace(base.evaluate, policy=headed_policy), serve=serve)
    check_recipe(recipe)
    return recipe


@pytest.fixture(scope="module")
def url(headed: Recipe, headed_policy: str) -> Iterator[str]:
    engines = build_engines(headed_policy, OWN_HEAD, headed.serve.policy_engine, headed.serve.value_engine, False, True)
    with running(create_app(build_searcher(headed, OWN_HEAD, *engines), headed.serve)) as found:
        yield found
    engines.close()


def test_the_content_can_have_a_form(url: str) -> None:
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEMS[0]}], "search": {"budget": 8, "seed": 0}}
    body["structured_outputs"] = {"regex": r"\d \d"}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False).json()
    [choice] = reply["choices"]
    assert re.fullmatch(r"\d \d", choice["message"]["content"])
    assert choice["finish_reason"] == "stop"


def metric(url: str, name: str, label: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and label in sample.labels.values()
    )


def test_a_search_has_values_and_no_scored_tokens(url: str, headed_policy: str) -> None:
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEMS[0]}], "stream": True}
    body["search"] = {"events": True, "budget": 8, "seed": 0}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as reply:
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    nodes = [event for event in events if "parent" in event]
    assert nodes
    assert all(0 < node["value"] < 1 for node in nodes)
    found = ask(f"{url}/v1", PROBLEMS[0], 0)["vgs_ray"]
    assert {leaf["value"] for leaf in found["leaves"]} <= {node["value"] for node in nodes}
    assert found["usage"]["scored"] == 0 < found["flops"]
    assert found["flops"] > 2 * model_size(headed_policy).params * found["usage"]["generated"]
    assert metric(url, "vgs_ray_tokens_total", "scored") == metric(url, "vgs_ray_flops_total", "value") == 0


def test_log_probabilities_of_the_content_are_those_of_the_policy(url: str, headed_policy: str) -> None:
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEMS[0]}], "logprobs": True, "stream": True}
    body["search"] = {"events": True, "budget": 4, "seed": 0}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as reply:
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    nodes = {event["id"]: event for event in events if "parent" in event}
    [prompt] = [event["prompt_token_ids"] for event in events if "prompt_token_ids" in event]
    choices = [event["choices"][0] for event in events if event.get("choices")]
    [found] = [choice["logprobs"]["content"] for choice in choices if choice["logprobs"]]
    content = "".join(choice["delta"].get("content", "") for choice in choices)
    [chosen] = [event["vgs_ray"]["node"] for event in events if "vgs_ray" in event]
    path: list[int] = []
    while chosen != "0":
        path, chosen = nodes[chosen]["token_ids"] + path, nodes[chosen]["parent"]
    model = AutoModelForCausalLM.from_pretrained(headed_policy, dtype=torch.float32)
    logits = model(torch.tensor([prompt + path])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    wanted = logits.gather(1, torch.tensor(path)[:, None])[:, 0].tolist()
    assert content
    assert "".join(token["token"] for token in found).strip() == content
    # The last token is that of the end of the sequence, which has no text.
    assert [token["logprob"] for token in found] == pytest.approx(wanted[-len(found) - 1 : -1], abs=1e-3)


def test_given_tokens_are_scored_and_counted(url: str, headed_policy: str) -> None:
    tokens = list(range(20, 60))
    body = {"model": "vgs", "input": [tokens], "every_token": True}
    reply = httpx.post(f"{url}/v1/score", json=body, timeout=120, trust_env=False).json()
    q = PolicyValueModel.from_pretrained(headed_policy).values(torch.tensor([tokens]))[0].tolist()
    assert reply["data"][0]["values"] == pytest.approx([(each + 1) / 2 for each in q], abs=1e-4)
    assert metric(url, "vgs_ray_tokens_total", "scored") >= len(tokens)
    assert metric(url, "vgs_ray_flops_total", "value") > 0


def test_engines_that_are_apart_have_one_kind_of_replica(headed: Recipe) -> None:
    policies, values = engine_applications(headed, OWN_HEAD)
    assert policies is values
    policies, values = engine_applications(headed, "folder")
    assert policies is not values
