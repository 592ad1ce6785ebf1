"""How likely the answer of a reply is: its probability as the evaluation fitted it, its share of the vote, and near ties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scripted_server import SETTINGS, chat, scripted_client, scripted_searcher

from pipelines.answer_probabilities import FILE, read_probabilities, write_probabilities
from pipelines.recipes import sandbox
from vgs_ray.search.answer_probability import AnswerProbability, FittedProbabilities
from vgs_ray.serve.search_result import Vote, vote_share

LIKELY = AnswerProbability(1.0, 1.0, 0.5, 0.2, -1.0)
FITTED = FittedProbabilities(SETTINGS.beam, SETTINGS.sampling, (4, 16), {"beam": LIKELY})
EARLIER = [{"role": "user", "content": "2"}, {"role": "assistant", "content": "4"}]


async def reply_to(**fields: Any) -> dict[str, Any]:
    async with scripted_client(scripted_searcher(probabilities=FITTED)) as client:
        reply = await client.post("/v1/chat/completions", json=chat(**fields))
    return dict(reply.json()["vgs_ray"])


async def test_the_probability_is_that_of_the_vote() -> None:
    reply = await reply_to(search={"seed": 3})
    weights = [vote["weight"] for vote in reply["votes"]]
    assert reply["share"] == pytest.approx(weights[0] / math.fsum(weights))
    assert reply["probability"] == pytest.approx(LIKELY.of(reply["share"], reply["value"], SETTINGS.beam.budget))
    assert reply["undecided"] == (len(weights) > 1 and weights[1] >= 0.9 * weights[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"search": {"method": "sample"}},
        {"search": {"select": "majority"}},
        {"search": {"block": 7}},
        {"search": {"budget": 32}},
        {"search": {"confidence": 0.9}},
        {"temperature": 1.5},
        {"stop": ["#"]},
        {"messages": [*EARLIER, {"role": "user", "content": "3"}]},
    ],
    ids=str,
)
async def test_a_search_unlike_those_of_the_evaluation_has_none(fields: dict[str, Any]) -> None:
    reply = await reply_to(**fields)
    assert reply["probability"] is None
    assert reply["share"] is not None


def test_the_share_of_votes_without_weight_is_unknown() -> None:
    assert vote_share([]) is None
    assert vote_share([Vote(0, (0,), 0.0)]) is None


def test_the_endpoint_reads_what_the_evaluation_of_its_models_wrote(tmp_path: Any) -> None:
    recipe = replace(sandbox(), root=str(tmp_path))
    assert read_probabilities(recipe) is None
    recipe.stage_folder("evaluate").mkdir(parents=True)
    write_probabilities(recipe, {"beam": LIKELY})
    assert (recipe.stage_folder("evaluate") / FILE).exists()
    found = read_probabilities(recipe)
    assert found is not None
    beam, sampling = recipe.serve.beam, recipe.serve.sampling
    assert found.of_search("beam", beam, sampling, beam.budget) == LIKELY
    assert read_probabilities(replace(recipe, serve=replace(recipe.serve, value_model="other"))) is None
    assert read_probabilities(replace(recipe, evaluate=replace(recipe.evaluate, policy="other"))) is None
