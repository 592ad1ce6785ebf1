"""Contents in a requested form: JSON of a schema and regular expressions, with scripted and with real engines."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest
from apart_endpoint import PROBLEMS
from scripted_server import REFUSED, WORLD, Moody, Served, ask, chat, scripted_client, scripted_searcher

SCHEMA = {"type": "integer", "minimum": 0, "maximum": 30}
INTEGER: Any = {"type": "json_schema", "json_schema": {"name": "last", "schema": SCHEMA}}


async def reply_of(policy: Moody, **fields: Any) -> Any:
    async with scripted_client(scripted_searcher(policy, context=400)) as client:
        return (await client.post("/v1/chat/completions", json=chat(search={"seed": 1}, **fields))).json()


async def test_the_content_has_the_form_and_the_search_is_the_same() -> None:
    plain, policy = await reply_of(Moody(WORLD)), Moody(WORLD)
    formed = await reply_of(policy, response_format=INTEGER)
    [choice] = formed["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"answer": 7}', "stop")
    before = plain["choices"][0]["message"]
    assert choice["message"]["reasoning_content"] == f"{before['reasoning_content']}\n\n{before['content']}"
    assert {name: formed["vgs_ray"][name] for name in ("votes", "value", "answer")} == {
        name: plain["vgs_ray"][name] for name in ("votes", "value", "answer")
    }
    assert formed["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"] + len(policy.formatted) + 1
    checked, sampling = policy.grammars
    assert checked.max_tokens == 1  # before the search
    assert (sampling.temperature, sampling.grammar.kind, json.loads(sampling.grammar.text)) == (
        0, "json", SCHEMA,
    )  # fmt: skip


async def test_a_content_without_the_answer_of_the_vote_has_a_warning() -> None:
    policy = Moody(WORLD)
    answer = (await reply_of(Moody(WORLD)))["vgs_ray"]["answer"]
    policy.formatted = f'{{"answer": {answer}}}'
    assert (await reply_of(policy, response_format=INTEGER))["vgs_ray"]["warnings"] == []
    policy.formatted = "99"
    [warning] = (await reply_of(policy, response_format=INTEGER))["vgs_ray"]["warnings"]
    assert f"the answer of the vote, {answer}" in warning


async def test_each_choice_has_the_form() -> None:
    formed = await reply_of(Moody(WORLD), response_format=INTEGER, n=2)
    assert [choice["message"]["content"] for choice in formed["choices"]] == 2 * ['{"answer": 7}']


async def test_a_content_that_is_cut_off_says_so() -> None:
    policy = Moody(WORLD)
    policy.formatted = "7" * 100
    formed = await reply_of(policy, response_format=INTEGER)
    assert formed["choices"][0]["finish_reason"] == "length"
    assert set(formed["choices"][0]["message"]["content"]) == {"7"}
    unfinished = await reply_of(Moody(WORLD), response_format=INTEGER, max_tokens=3)
    [choice] = unfinished["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_an_error_before_the_search(stream: bool) -> None:
    policy = Moody(WORLD)
    refused = await reply_of(policy, structured_outputs={"regex": REFUSED}, stream=stream)
    assert "no backend takes this" in refused["error"]["message"]
    assert refused["error"]["param"] == "response_format"
    assert policy.usage.generated == 0


async def test_a_text_without_the_form_is_no_answer() -> None:
    policy = Moody(WORLD)
    policy.formatted = "seven"
    refused = await reply_of(policy, response_format=INTEGER)
    assert "the policy wrote 'seven'" in refused["error"]["message"]


async def test_log_probabilities_and_a_form_exclude_each_other() -> None:
    refused = await reply_of(Moody(WORLD), response_format=INTEGER, logprobs=True)
    assert refused["error"]["param"] == "logprobs"


def test_completions_have_no_form(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="response_format is"):
        served.client.completions.create(model="vgs", prompt="3", extra_body={"response_format": INTEGER})
    assert ask(served, response_format={"type": "text"}).choices[0].message.content


def counted(vote: dict[str, Any]) -> tuple[str, int]:
    """A vote without its weight, which depends a little on the batches of the engine."""
    return vote["answer"], vote["leaves"]


@pytest.mark.timeout(300)
def test_real_engines_write_the_form(apart_url: str) -> None:
    """The vocabulary of the sandbox has digits, but no quotes and braces."""
    client = openai.OpenAI(base_url=apart_url, api_key="none", max_retries=0, timeout=120)
    asked: Any = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEMS[0]}]}
    search = {"search": {"seed": 1, "budget": 8}}
    formed = client.chat.completions.create(**asked, response_format=INTEGER, extra_body=search)
    assert 0 <= json.loads(str(formed.choices[0].message.content)) <= 30
    plain: Any = client.chat.completions.create(**asked, extra_body=search)
    assert formed.model_extra is not None
    assert [*map(counted, formed.model_extra["vgs_ray"]["votes"])] == [*map(counted, plain.vgs_ray["votes"])]
    regex = search | {"structured_outputs": {"regex": r"\d \d"}}
    with client.chat.completions.stream(**asked, extra_body=regex) as stream:
        stream.until_done()
        streamed = stream.get_final_completion()
    assert re.fullmatch(r"\d \d", str(streamed.choices[0].message.content))
    form: Any = {"format": {"type": "json_schema", "name": "last", "schema": SCHEMA}}
    response = client.responses.create(model="vgs", input=PROBLEMS[0], text=form, extra_body=search)
    assert response.output_text == formed.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="form of the content"):
        client.chat.completions.create(**asked, response_format={"type": "json_object"}, extra_body=search)
