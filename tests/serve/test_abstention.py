"""`search.min_confidence`: a refusal in place of an answer whose probability is too low, and why it may be unknown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from scripted_server import (
    SETTINGS,
    VOCABULARY,
    WORLD,
    HangsAfterTwoBlocks,
    chat,
    running,
    scripted_client,
    scripted_searcher,
)

from vgs_ray.search.answer_probability import AnswerProbability, FittedProbabilities
from vgs_ray.serve.app import create_app

FITTED = FittedProbabilities(SETTINGS.beam, SETTINGS.sampling, (4, 16), {"beam": AnswerProbability(1, 1, 0.5, 0.2, -1)})
MESSAGES: Any = [{"role": "user", "content": "3"}]


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    searcher = scripted_searcher(probabilities=FITTED, vocabulary=VOCABULARY)
    with running(create_app(searcher, SETTINGS)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


def ask(client: openai.OpenAI, least: float, **more: Any) -> Any:
    return client.chat.completions.create(
        model="vgs", messages=MESSAGES, seed=3, extra_body={"search": {"min_confidence": least}}, **more
    )


def test_an_answer_below_the_requested_probability_is_a_refusal(client: openai.OpenAI) -> None:
    plain: Any = client.chat.completions.create(model="vgs", messages=MESSAGES, seed=3)
    probability = plain.vgs_ray["probability"]
    given, refused = ask(client, probability), ask(client, min(probability + 0.001, 1.0))
    assert given.choices[0].message == plain.choices[0].message
    assert (given.choices[0].message.refusal, given.vgs_ray["abstained"], plain.vgs_ray["abstained"]) == (
        None,
        False,
        False,
    )
    [choice] = refused.choices
    assert (choice.finish_reason, choice.message.content) == ("stop", "")
    assert f"is correct is {probability:.3f}, and search.min_confidence is" in choice.message.refusal
    assert choice.message.reasoning_content == plain.choices[0].message.reasoning_content
    found = refused.vgs_ray
    assert (found["abstained"], found["answer"], found["probability"]) == (True, plain.vgs_ray["answer"], probability)


def test_a_stream_has_the_refusal_in_place_of_the_content(client: openai.OpenAI) -> None:
    whole = ask(client, 1.0)
    chunks = list(ask(client, 1.0, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.refusal or "" for delta in deltas) == whole.choices[0].message.refusal
    assert "".join(delta.content or "" for delta in deltas) == ""
    assert chunks[-1].model_extra["vgs_ray"]["abstained"]
    with client.chat.completions.stream(
        model="vgs", messages=MESSAGES, seed=3, extra_body={"search": {"min_confidence": 1.0}}
    ) as stream:
        events = {event.type: event for event in stream}
        final = stream.get_final_completion()
    assert events["refusal.done"].refusal == final.choices[0].message.refusal == whole.choices[0].message.refusal


async def test_a_deadline_leaves_the_probability_unknown() -> None:
    searcher = scripted_searcher(HangsAfterTwoBlocks(WORLD), probabilities=FITTED)
    async with scripted_client(searcher) as client:
        reply = await client.post("/v1/chat/completions", json=chat(search={"min_confidence": 0.1, "deadline_s": 0.3}))
    [choice] = reply.json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")
    assert "is correct is unknown" in choice["message"]["refusal"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"search": {"method": "sample"}}, "too few problems to fit it for method 'sample'"),
        ({"search": {"select": "majority"}}, "leave stop, search.confidence and search.select out"),
        ({"search": {"confidence": 0.9}}, "leave stop, search.confidence and search.select out"),
        ({"stop": ["#"]}, "leave stop, search.confidence and search.select out"),
        ({"search": {"block": 7}}, "another shape of the beam or other sampling parameters"),
        ({"max_tokens": 30}, "leave those fields and max_tokens out"),
        ({"search": {"budget": 32}}, "the budget is 32, and the evaluation had 4 to 16"),
        ({"n": 2}, "only the chosen answer has a probability: leave n out"),
        ({"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]}, "send the problem as the only message"),
    ],
    ids=str,
)
async def test_a_search_without_a_probability_is_refused(fields: Any, said: str, stream: bool) -> None:
    body = chat(**fields, stream=stream)
    body["search"] = body.get("search", {}) | {"min_confidence": 0.5}
    async with scripted_client(scripted_searcher(probabilities=FITTED)) as client:
        reply = await client.post("/v1/chat/completions", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "search.min_confidence")
    assert said in error["message"]


async def test_a_server_without_evaluation_and_a_raw_prompt_have_none() -> None:
    search = {"min_confidence": 0.5}
    async with scripted_client() as client:
        without = await client.post("/v1/chat/completions", json=chat(search=search))
    async with scripted_client(scripted_searcher(probabilities=FITTED)) as client:
        raw = await client.post("/v1/completions", json={"model": "vgs", "prompt": "3", "search": search})
    assert "python -m pipelines.evaluate RECIPE" in without.json()["error"]["message"]
    assert "use /v1/chat/completions" in raw.json()["error"]["message"]
    assert without.status_code == raw.status_code == 400
