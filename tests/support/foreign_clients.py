"""Clients of OpenAI's API, one function each, in a process of a virtual environment that has them.

python foreign_clients.py CLIENT URL PROBLEM FOLDER: a request, and a stream where the client has one. A wrong reply is an
AssertionError. URL ends with `/v1`. FOLDER is empty, for files of the client.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

MODEL, KEY = "vgs", "none"


def openai_package(url: str, problem: str, folder: Path) -> None:
    """Chat completions, completions and responses: synchronous, asynchronous, as a stream, and with the stream helpers."""
    import openai

    messages = [{"role": "user", "content": problem}]
    seed = {"search": {"seed": 1}}
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        chat = client.chat.completions.create(model=MODEL, messages=messages, extra_body=seed, logprobs=True)
        whole = chat.choices[0].message.content
        assert whole, chat
        assert chat.choices[0].logprobs.content, chat
        with client.chat.completions.stream(model=MODEL, messages=messages, extra_body=seed) as stream:
            assert stream.get_final_completion().choices[0].message.content == whole
        response = client.responses.create(model=MODEL, input=problem, reasoning={"effort": "medium"}, extra_body=seed)
        assert response.output_text == whole, response
        with client.responses.stream(model=MODEL, input=problem, extra_body=seed) as stream:
            assert stream.get_final_response().output_text == whole
        chunks = list(client.completions.create(model=MODEL, prompt=problem, stream=True, extra_body=seed))
        assert "".join(chunk.choices[0].text for chunk in chunks)
        assert MODEL in [model.id for model in client.models.list()]
        _parsed(client, messages)

    async def asynchronous() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
            chat = await client.chat.completions.create(model=MODEL, messages=messages, extra_body=seed)
            response = await client.responses.create(model=MODEL, input=problem, extra_body=seed)
            assert chat.choices[0].message.content == response.output_text == whole
            stream = await client.responses.create(model=MODEL, input=problem, extra_body=seed, stream=True)
            events = [event async for event in stream]
            assert events[-1].response.output_text == whole
            async with client.chat.completions.stream(model=MODEL, messages=messages, extra_body=seed) as helper:
                assert (await helper.get_final_completion()).choices[0].message.content == whole

    asyncio.run(asynchronous())


def _parsed(client, messages) -> None:  # type: ignore[no-untyped-def]
    """Typed contents, which the package makes from a JSON schema."""
    import pydantic

    class Result(pydantic.BaseModel):
        answer: int

    parsed = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Result)
    assert parsed.choices[0].message.parsed == Result(answer=7), parsed
    response = client.responses.parse(model=MODEL, input=messages, text_format=Result)
    assert response.output_parsed == Result(answer=7), response


def litellm(url: str, problem: str, folder: Path) -> None:
    import litellm

    messages = [{"role": "user", "content": problem}]
    asked = {"model": f"openai/{MODEL}", "messages": messages, "api_base": url, "api_key": KEY, "seed": 1}
    reply = litellm.completion(**asked)
    assert reply.choices[0].message.content, reply
    assert reply.choices[0].message.reasoning_content, reply
    chunks = list(litellm.completion(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == reply.choices[0].message.content
    response = litellm.responses(model=f"openai/{MODEL}", input=problem, api_base=url, api_key=KEY)
    assert [item.type for item in response.output] == ["reasoning", "message"], response


def langchain(url: str, problem: str, folder: Path) -> None:
    from langchain_openai import ChatOpenAI, OpenAI

    model = ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, seed=1)
    reply = model.invoke(problem)
    assert reply.content, reply
    assert reply.usage_metadata["output_tokens"] > 0, reply
    assert "".join(chunk.content for chunk in model.stream(problem)) == reply.content
    assert asyncio.run(model.ainvoke([("system", "Solve it."), ("user", problem)])).content
    responses = ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, use_responses_api=True)
    assert [part["type"] for part in responses.invoke(problem).content][-1] == "text"
    assert any(chunk.content for chunk in responses.stream(problem))
    schema = {"title": "result", "type": "object", "properties": {"answer": {"type": "integer"}}}
    typed = model.with_structured_output(schema, method="json_schema")
    assert typed.invoke(problem) == {"answer": 7}
    assert OpenAI(model=MODEL, base_url=url, api_key=KEY, max_tokens=64).invoke(problem)


def pydantic_ai(url: str, problem: str, folder: Path) -> None:
    import pydantic
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Result(pydantic.BaseModel):
        answer: int

    provider = OpenAIProvider(base_url=url, api_key=KEY)
    for model in (OpenAIChatModel(MODEL, provider=provider), OpenAIResponsesModel(MODEL, provider=provider)):
        agent = Agent(model)
        reply = agent.run_sync(problem)
        assert reply.output, reply
        again = agent.run_sync(problem, message_history=reply.all_messages())
        assert again.output, again

        async def streamed(agent: Agent = agent) -> str:
            async with agent.run_stream(problem) as stream:
                return await stream.get_output()

        assert asyncio.run(streamed())
        assert Agent(model, output_type=NativeOutput(Result)).run_sync(problem).output == Result(answer=7)


def llm(url: str, problem: str, folder: Path) -> None:
    """The command `llm` with a model of its file `extra-openai-models.yaml`, with and without a stream."""
    models = f"- model_id: searched\n  model_name: {MODEL}\n  api_base: {url}\n  api_key_name: searched\n"
    (folder / "extra-openai-models.yaml").write_text(models)
    for more in ([], ["--no-stream"], ["-s", "Solve it."], ["-o", "seed", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "searched", "--key", KEY, *more, problem],
            capture_output=True, text=True, env=os.environ | {"LLM_USER_PATH": str(folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), done.stderr


def lm_eval(url: str, problem: str, folder: Path) -> None:
    """A task of five problems, by chat completions and by completions."""
    rows = "".join(f"{json.dumps({'question': problem, 'answer': '7'})}\n" for _ in range(5))
    (folder / "problems.jsonl").write_text(rows)
    (folder / "small_task.yaml").write_text(
        f"""task: small_task
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder / "problems.jsonl"}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:"], do_sample: false, temperature: 0.0, max_gen_toks: 64}}
filter_list:
  - name: boxed
    filter:
      - {{function: regex, regex_pattern: "boxed{{(-?[0-9]+)}}"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
    )
    for kind, route, more in (
        ("local-chat-completions", "chat/completions", ["--apply_chat_template"]),
        ("local-completions", "completions", []),
    ):
        options = f"model={MODEL},base_url={url}/{route},num_concurrent=2,max_retries=1,tokenizer_backend=None"
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", kind, "--model_args", options, "--tasks", "small_task",
            "--include_path", str(folder), "--output_path", str(folder / kind), "--log_samples", *more,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OPENAI_API_KEY": KEY})
        assert done.returncode == 0, done.stdout + done.stderr
        [samples] = (folder / kind).rglob("samples_*.jsonl")
        told = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
        assert len(told) == 5, told
        assert all("boxed{" in text for text in told), told


def inspect_ai(url: str, problem: str, folder: Path) -> None:
    """A task of two problems, by chat completions and by responses."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes

    samples = [Sample(id=str(at), input=problem, target="boxed") for at in range(2)]
    task = Task(dataset=MemoryDataset(samples), scorer=includes())
    for responses in (False, True):
        model = get_model(f"openai/{MODEL}", base_url=url, api_key=KEY, responses_api=responses)
        [log] = eval(task, model=model, display="plain", log_dir=str(folder), max_tokens=64)
        assert log.status == "success", log.error
        assert [sample.scores["includes"].value for sample in log.samples] == ["C", "C"], log.samples


def instructor(url: str, problem: str, folder: Path) -> None:
    import instructor
    import openai
    import pydantic

    class Result(pydantic.BaseModel):
        answer: int

    client = instructor.from_openai(openai.OpenAI(base_url=url, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
    messages = [{"role": "user", "content": problem}]
    result = client.chat.completions.create(model=MODEL, messages=messages, response_model=Result, max_retries=0)
    assert result.answer == 7, result


CLIENTS = {each.__name__: each for each in (openai_package, litellm, langchain, pydantic_ai, llm, lm_eval, inspect_ai)}

if __name__ == "__main__":
    _, client, url, problem, folder = sys.argv
    (CLIENTS | {instructor.__name__: instructor})[client](url, problem, Path(folder))
