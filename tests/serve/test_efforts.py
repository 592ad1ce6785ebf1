"""`reasoning_effort`: the size of the search relative to that of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openai
import pytest
from scripted_server import SETTINGS, Served, ask

from vgs_ray.serve.requests import ChatRequest
from vgs_ray.serve.search_spec import SearchSpec, resolve_search

MESSAGES = [{"role": "user", "content": "3"}]
LARGE = replace(SETTINGS, beam=replace(SETTINGS.beam, groups=8), max_budget=64)
"""A beam of 8 groups, each of 4 generations."""


def resolved(model: str = "vgs", **fields: Any) -> SearchSpec:
    return resolve_search(ChatRequest.model_validate({"model": model, "messages": MESSAGES, **fields}), LARGE)


@pytest.mark.parametrize(
    ("effort", "method", "budget"),
    [
        (None, "beam", 32),
        ("none", "sample", 1),
        ("minimal", "beam", 4),
        ("low", "beam", 8),
        ("medium", "beam", 32),
        ("high", "beam", 64),
    ],
)
def test_an_effort_changes_the_number_of_groups(effort: str | None, method: str, budget: int) -> None:
    spec = resolved(reasoning_effort=effort)
    assert (spec.method, spec.budget, spec.warnings) == (method, budget, ())
    assert (spec.beam.keep, spec.beam.branch, spec.beam.block) == (2, 2, 6)


@pytest.mark.parametrize(
    ("model", "effort", "search", "budget"),
    [
        ("vgs-fast", "high", {}, 16),
        ("vgs-fast", "low", {}, 4),
        ("majority", "low", {}, 8),
        ("best-of-n", "minimal", {}, 1),
        ("policy", "high", {}, 1),
        ("vgs", "high", {"keep": 1}, 32),
        ("vgs", "none", {"method": "beam"}, 4),
        ("vgs", "low", {"method": "sample"}, 8),
        ("vgs", "high", {"budget": 8}, 8),
        ("vgs", "high", {"groups": 3}, 12),
        ("vgs", "none", {"budget": 8}, 8),
    ],
)
def test_the_model_is_the_measure_and_search_overrides(model: str, effort: str, search: Any, budget: int) -> None:
    assert resolved(model, reasoning_effort=effort, search=search).budget == budget


def test_the_limit_of_the_server_reduces_an_effort_with_a_warning() -> None:
    spec = resolved(reasoning_effort="xhigh")
    assert spec.budget == LARGE.max_budget
    [warning] = spec.warnings
    assert warning == (
        "reasoning_effort is xhigh, which is a budget of 128; this server allows at most 64: it was reduced to 64"
    )


def test_samples_without_a_budget_are_as_many_as_choices() -> None:
    assert resolved("majority", reasoning_effort="low", n=12).budget == 12


def test_an_effort_of_the_official_client(served: Served) -> None:
    assert [len(ask(served, reasoning_effort=effort).vgs_ray["leaves"]) for effort in ("none", "low", "high")] == [
        1,
        2,
        8,
    ]
    with pytest.raises(openai.BadRequestError, match='reasoning_effort is "much"') as refused:
        ask(served, reasoning_effort="much")
    assert refused.value.param == "reasoning_effort"
    for effort in ("low", "none"):
        more: Any = {"extra_body": {"reasoning_effort": effort}}
        with pytest.raises(openai.BadRequestError, match="leave reasoning_effort out"):
            served.client.completions.create(model="vgs", prompt="3", **more)
