"""Stop strings and `n`: an answer ends at the same place for all sizes of blocks and pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import SETTINGS, Served

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Usage
from vgs_ray.serve import stop_strings
from vgs_ray.serve.stop_strings import StopStringPolicy, text_before_stop

PROMPT = (7, 7)
TEXTS = st.text(alphabet="ab</é猫", max_size=40)
STOPS = st.lists(st.text(alphabet="ab</é猫", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)


class Writer:
    """A policy that generates one text, one token for each byte, and then stops."""

    def __init__(self, text: str) -> None:
        self.response, self.usage, self.asked = tuple(text.encode()), Usage(), 0

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        at = len(prefix) - len(PROMPT)
        self.asked += 1
        made = self.response[at : at + sampling.max_tokens]
        ended = at + len(made) == len(self.response)
        return Completion(made, ended, "stop" if ended else "length", 0.0, 1)


def decode(tokens: Tokens) -> str:
    return bytes(tokens).decode(errors="replace")


def pieces(tokens: Tokens) -> list[str]:
    """As `Searcher.pieces`: the last byte of a character has its text."""
    texts, held = [], b""
    for token in tokens:
        held += bytes([token])
        try:
            texts.append(held.decode())
            held = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts


async def written(policy: StopStringPolicy, block: int) -> tuple[Tokens, bool]:
    tokens: Tokens = ()
    while True:
        made = await policy.extend(PROMPT + tokens, Sampling(max_tokens=block), 3)
        assert len(made.tokens) <= block
        tokens += made.tokens
        if made.finished or not made.tokens:
            return tokens, made.finished


@given(TEXTS, STOPS, st.integers(1, 50), st.integers(1, 9))
def test_an_answer_ends_at_the_first_stop_string(text: str, stop: tuple[str, ...], block: int, piece: int) -> None:
    with pieces_of(piece):
        writer = Writer(text)
        policy = StopStringPolicy(writer, len(PROMPT), stop, decode, pieces)
        tokens, finished = asyncio.run(written(policy, block))
    assert finished
    assert text_before_stop(decode(tokens), stop) == text_before_stop(text, stop)
    assert policy.wasted < piece
    if (cut := text_before_stop(text, stop)) != text:
        assert len(tokens) <= len(cut.encode()) + max(len(one.encode()) for one in stop)
    else:
        assert decode(tokens) == text


@contextmanager
def pieces_of(tokens: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop_strings, "PIECE", tokens)
        yield


def test_a_string_that_ends_in_the_next_block_stops_too() -> None:
    policy = StopStringPolicy(Writer("ab cd"), len(PROMPT), ("b c",), decode, pieces)
    tokens, _ = asyncio.run(written(policy, 2))
    assert decode(tokens) == "ab c"


def test_the_reply_ends_before_the_stop_string(served: Served) -> None:
    def text(**more: Any) -> str:
        body = {"model": "policy", "prompt": "abc", "seed": 5, "max_tokens": 30, **more}
        return served.client.completions.create(**body).choices[0].text

    whole = text()
    assert len(whole) > 12
    assert (
        text(stop=whole[9:12])
        == text(stop=["nowhere", whole[9:12]])
        == text_before_stop(whole, (whole[9:12],), len("<think>"))
    )
    assert text(stop="nowhere") == text(stop=[]) == whole


def test_tokens_after_a_stop_string_count_in_the_usage(served: Served) -> None:
    body: dict[str, Any] = {"model": "policy", "prompt": "abc", "seed": 5, "max_tokens": 30}
    whole = served.client.completions.create(**body)
    short = served.client.completions.create(**body, stop=whole.choices[0].text[9:12])
    assert short.choices[0].finish_reason == "stop"
    assert short.usage
    assert whole.usage
    assert short.usage.completion_tokens == whole.usage.completion_tokens


def test_n_answers_come_best_first(served: Served) -> None:
    reply: Any = served.client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "3"}], n=4, seed=2
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    votes = [vote["answer"] for vote in reply.vgs_ray["votes"]]
    answers = [choice.message.content.removeprefix("So \\boxed{").removesuffix("}") for choice in reply.choices]
    assert answers[: len(votes)] == votes
    left = sorted(answer for answer in answers if answer)
    assert left == sorted(leaf["answer"] for leaf in reply.vgs_ray["leaves"] if leaf["answer"])
    one: Any = served.client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "3"}], seed=2
    )
    assert one.choices[0].message.content == reply.choices[0].message.content


def test_n_raises_the_budget_of_plain_sampling(served: Served) -> None:
    reply: Any = served.client.chat.completions.create(
        model="policy", messages=[{"role": "user", "content": "3"}], n=5, seed=2
    )
    assert len(reply.choices) == len(reply.vgs_ray["leaves"]) == 5


def test_n_more_than_the_search_has_answers_is_refused(served: Served) -> None:
    reply = served.post(n=SETTINGS.beam.keep * SETTINGS.beam.groups + 1)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "n"
    assert "has 4 answers (keep * groups)" in reply.json()["error"]["message"]


def test_streamed_choices_are_those_of_the_reply(served: Served) -> None:
    asked: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "3"}], "n": 3, "seed": 2}
    reply = served.client.chat.completions.create(**asked)
    texts, ends = ["", "", ""], [None, None, None]
    for chunk in served.client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in reply.choices]
    assert ends == [choice.finish_reason for choice in reply.choices]


class Scorer(Writer):
    """The log-probability of a token is the negative of its byte."""

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        made = await super().extend(prefix, sampling, seed)
        return made._replace(mean_logprob=-sum(made.tokens) / max(len(made.tokens), 1))


@pytest.mark.parametrize(("text", "sampled"), [("a" * 40 + "c", "a" * 40 + "c"), ("a" * 5 + "b" + "c" * 9, "aaaaabcc")])
def test_the_log_probability_is_the_mean_over_all_pieces(
    text: str, sampled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The piece in which a stop string ends counts as a whole."""
    monkeypatch.setattr(stop_strings, "PIECE", 8)
    policy = StopStringPolicy(Scorer(text), len(PROMPT), ("b",), decode, pieces)
    made = asyncio.run(policy.extend(PROMPT, Sampling(max_tokens=99), 0))
    assert made.mean_logprob == pytest.approx(-sum(sampled.encode()) / len(sampled))
