"""Log-probabilities of the tokens of an answer, in both routes, as a reply and as a stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from scripted_server import SETTINGS, VOCABULARY, Moody, running, scripted_searcher

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.scripted import END, World
from vgs_ray.serve.app import create_app

SLIPPING = World(slip=0.3)
MESSAGES: Any = [{"role": "user", "content": "3"}]
STEP, SLIP = math.log(0.7), math.log(0.3)
TEXTS = {0: " ok", 1: "</think>", END: ""}
"""The first slip ends the thought."""


def decode(tokens: Tokens) -> str:
    return "".join(TEXTS[token] for token in tokens)


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    searcher = scripted_searcher(Moody(SLIPPING), decode=decode, vocabulary=VOCABULARY)
    with running(create_app(searcher, SETTINGS)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


def logprob_of(token: str) -> float:
    return STEP if token == " ok" else SLIP


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("more", [{}, {"n": 3}, {"stop": ["ok</think> ok</think>"]}], ids=str)
def test_a_chat_has_those_of_the_content(client: openai.OpenAI, seed: int, more: Any) -> None:
    plain = client.chat.completions.create(model="vgs", messages=MESSAGES, seed=seed, **more)
    reply = client.chat.completions.create(
        model="vgs", messages=MESSAGES, seed=seed, logprobs=True, top_logprobs=0, **more
    )
    assert len(reply.choices) == more.get("n", 1)
    for choice, without in zip(reply.choices, plain.choices, strict=True):
        assert (choice.message, without.logprobs) == (without.message, None)
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        tokens = [token.token for token in choice.logprobs.content]
        assert "".join(tokens).strip() == choice.message.content
        assert [token.logprob for token in choice.logprobs.content] == pytest.approx([*map(logprob_of, tokens)])
        assert all(bytes(token.bytes or ()).decode() == token.token for token in choice.logprobs.content)
        assert all(token.top_logprobs == [] for token in choice.logprobs.content)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("more", [{}, {"stop": ["ok</think> ok</think>"]}], ids=str)
def test_a_completion_has_those_of_the_whole_text(client: openai.OpenAI, seed: int, more: Any) -> None:
    reply = client.completions.create(model="vgs", prompt="3", seed=seed, logprobs=0, **more)
    [choice] = reply.choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens
    assert found.token_logprobs == pytest.approx([*map(logprob_of, found.tokens)])
    assert "".join(found.tokens).startswith(choice.text)
    assert found.text_offset == [len("".join(found.tokens[:at])) for at in range(len(found.tokens))]
    assert found.text_offset[-1] < len(choice.text)


def test_streams_have_them_too(client: openai.OpenAI) -> None:
    asked: Any = {"model": "vgs", "messages": MESSAGES, "seed": 1, "logprobs": True, "n": 2}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked) as stream:
        stream.until_done()
        gathered = stream.get_final_completion()
    for choice, streamed in zip(whole.choices, gathered.choices, strict=True):
        assert (choice.logprobs and choice.logprobs.content) == (streamed.logprobs and streamed.logprobs.content)
    raw: Any = {"model": "vgs", "prompt": "3", "seed": 1, "logprobs": 0}
    told = [chunk.choices[0].logprobs for chunk in client.completions.create(**raw, stream=True)]
    assert [each for each in told if each] == [client.completions.create(**raw).choices[0].logprobs]


def test_other_tokens_at_a_place_are_refused_with_the_rule(client: openai.OpenAI) -> None:
    rule = "the engines keep the log-probability of the sampled token only"
    with pytest.raises(openai.BadRequestError, match=rule) as chat:
        client.chat.completions.create(model="vgs", messages=MESSAGES, logprobs=True, top_logprobs=2)
    with pytest.raises(openai.BadRequestError, match=rule) as completion:
        client.completions.create(model="vgs", prompt="3", logprobs=1)
    assert (chat.value.param, completion.value.param) == ("top_logprobs", "logprobs")


def test_without_a_thought_the_content_is_the_answer() -> None:
    searcher = scripted_searcher(Moody(SLIPPING), decode=lambda tokens: "</think>" + "".join("x" for _ in tokens))
    with running(create_app(searcher, replace(SETTINGS, sampling=replace(SETTINGS.sampling, max_tokens=9)))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)
        [choice] = client.chat.completions.create(model="vgs", messages=MESSAGES, logprobs=True).choices
    assert choice.message.content == "x" * 9
    assert choice.logprobs is not None
    assert [token.token for token in choice.logprobs.content or []] == ["x"] * 9
