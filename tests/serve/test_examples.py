"""Runs every request of README, docs and page against the sandbox's policy, and checks that the answers are right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from documents import DOCUMENTS, ROOT, commands, snippets
from scripted_server import running

from pipelines.recipes import sandbox
from pipelines.serving.application import build_searcher
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_policy
from vgs_ray.engines.interface import Score
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.grade import equivalent
from vgs_ray.models import RANDOM, model_path
from vgs_ray.prompts import load_tokenizer
from vgs_ray.sandbox.world import Problem
from vgs_ray.serve.app import create_app
from vgs_ray.serve.web_page import PAGE

ADDRESS = "http://127.0.0.1:8000"
CURL = [command for command in commands() if command.startswith("curl ")]
ASK = [command for command in commands() if command.startswith("python -m pipelines.ask ")]
CODE = [code for _, kind, code in snippets() if kind == "python" and ADDRESS in code]
STEP = re.compile(r"\d+\) (add|subtract|multiply by) (\d+)")


def problem_of(text: str) -> Problem:
    """The sandbox's problem with this text."""
    start, divisor = re.search(r"Start with (\d+)", text), re.search(r"divided by (\d+)", text)
    assert start, f"no problem of the sandbox: {text}"
    steps = tuple((verb, int(operand)) for verb, operand in STEP.findall(text))
    problem = Problem(int(start[1]), steps, int(divisor[1]) if divisor else None)
    assert problem.text == text
    return problem


def examples_of_the_page() -> list[dict[str, str]]:
    return json.loads((PAGE / "examples.json").read_text())[sandbox().serve.model_name]


def right(answer: str | None, text: str) -> bool:
    return answer is not None and equivalent(problem_of(text).answer, answer)


class ReadsSteps(RandomValue):
    """A value model of the sandbox that needs no training: it finds the first written step that is wrong."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    async def score(self, tokens: Tokens) -> Score:
        asked, _, written = self.tokenizer.decode(list(tokens)).partition("<think>")
        last = dict(re.findall(r"(\d+)\) .*=(\d+);", written))  # a correction stands behind what it corrects
        values = problem_of(re.search(r"Work.*\?", asked, re.S)[0]).values  # type: ignore[index]
        slipped = any(
            int(number) > len(values) or values[int(number) - 1] != int(found) for number, found in last.items()
        )
        return Score(0.05 if slipped else 0.95, (), len(tokens))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The sandbox's policy, guided as after a good training."""
    recipe = sandbox()
    model = model_path(recipe.policy.model)
    policy = build_policy(model, recipe.serve.policy_engine, logprobs=False)
    value = ReadsSteps(load_tokenizer(model))
    with running(create_app(build_searcher(recipe, RANDOM, policy, value), recipe.serve)) as found:
        yield found
    policy.close()


def post(url: str, body: dict[str, object]) -> str | None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.json()["vgs_ray"]["answer"]


def run(*command: str) -> str:
    environment = {**os.environ, "no_proxy": "*"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def problem_in(code: str) -> str:
    """The text of the problem in a quoted string."""
    return json.loads(re.findall(r'"Work modulo .*?"', code)[0])


@pytest.mark.parametrize("command", CURL)
def test_curl(url: str, command: str) -> None:
    reply = json.loads(run("bash", "-c", command.replace(ADDRESS, url)))
    assert right(reply["vgs_ray"]["answer"], problem_in(command))


@pytest.mark.parametrize("code", CODE)
def test_python(url: str, code: str) -> None:
    printed = run(sys.executable, "-c", code.replace(ADDRESS, url))
    assert right(printed.splitlines()[-1].split()[0], problem_in(code))


@pytest.mark.parametrize("command", ASK)
def test_the_terminal(url: str, command: str) -> None:
    [quoted] = re.findall(r"\$'[^']*'", command)
    printed = run("bash", "-c", command.replace("python", sys.executable, 1) + f" --url {url}/v1")
    answers = re.findall(r"boxed\{(.*)\}", printed)
    assert right(answers[-1] if answers else None, run("bash", "-c", f"printf %s {quoted}")), printed


def test_the_page(url: str) -> None:
    examples = examples_of_the_page()
    assert len(examples) == 4
    for example in examples:  # the server draws a seed for each
        text = example["problem"]
        assert problem_of(text).answer == example["answer"]
        assert right(post(url, {"model": "vgs", "messages": [{"role": "user", "content": text}]}), text), text


def test_every_example_is_a_problem_of_the_sandbox() -> None:
    assert CURL
    assert CODE
    assert ASK
    files = [*ROOT.glob("pipelines/*.py"), *ROOT.glob("jobs/*.*"), *PAGE.glob("*.*"), *DOCUMENTS]
    assert [file.name for file in files if re.search(r"What is \d+ ?\+", file.read_text())] == []
