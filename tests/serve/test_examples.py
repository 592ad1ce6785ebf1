"""The problems that README, docs and page give as examples, asked as a reader would: the sandbox's policy can do them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_server import running

from pipelines.recipes import sandbox
from pipelines.serving.application import searcher
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

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ASKED = re.compile(r"python -m pipelines\.ask (?P<problem>\$'[^']*'|\"[^\"]*\"|'[^']*')[^`\n|]*")
STEP = re.compile(r"\d+\) (add|subtract|multiply by) (\d+)")


def problem_of(text: str) -> Problem:
    """The sandbox's problem with this text."""
    start, divisor = re.search(r"Start with (\d+)", text), re.search(r"divided by (\d+)", text)
    assert start, f"no problem of the sandbox: {text}"
    steps = tuple((verb, int(operand)) for verb, operand in STEP.findall(text))
    problem = Problem(int(start[1]), steps, int(divisor[1]) if divisor else None)
    assert problem.text == text
    return problem


def commands() -> list[str]:
    return [found[0].strip() for file in DOCUMENTS for found in ASKED.finditer(file.read_text())]


def examples_of_the_page() -> dict[str, str]:
    script = (PAGE / "index.html").read_text().partition("const EXAMPLES = {")[2].partition("\n};")[0]
    return json.loads("{" + script.partition("\n")[2].rstrip().rstrip(",") + "}")


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
    with running(create_app(searcher(recipe, RANDOM, policy, value), recipe.serve)) as found:
        yield found
    policy.close()


def post(url: str, body: dict[str, object]) -> str | None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.json()["vgs_ray"]["answer"]


def test_the_curl_command(url: str) -> None:
    [text] = re.findall(
        r"curl [^\n]*/v1/chat/completions .*? -d '(.*?)'\n", (ROOT / "docs/serving.md").read_text(), re.S
    )
    body = json.loads(text)
    assert right(post(url, body), body["messages"][0]["content"])


def test_the_openai_client(url: str) -> None:
    [code] = re.findall(r"```python\nimport openai\n.*?```", (ROOT / "docs/serving.md").read_text(), re.S)
    code = code.removeprefix("```python").removesuffix("```").replace("http://127.0.0.1:8000", url)
    text = json.loads(re.findall(r'"content": (".*")', code)[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert right(done.stdout.splitlines()[-1].split()[0], text)


def test_the_terminal(url: str) -> None:
    found = commands()
    assert found
    for command in set(found):
        [quoted] = ASKED.findall(command)
        text = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True).stdout
        run = command.replace("python", sys.executable, 1) + f" --url {url}/v1"
        done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        said = re.findall(r"boxed\{(.*)\}", done.stdout)
        assert right(said[-1] if said else None, text), done.stdout


def test_the_page(url: str) -> None:
    examples = examples_of_the_page()
    assert len(examples) == 4
    for text in examples.values():  # the server draws a seed for each
        assert right(post(url, {"model": "vgs", "messages": [{"role": "user", "content": text}]}), text), text


def test_every_problem_in_the_documents_is_one_that_was_asked() -> None:
    for file in DOCUMENTS:
        for text in re.findall(r'"content": ("Work.*?")', file.read_text()):
            problem_of(json.loads(text))
    code = [*ROOT.glob("pipelines/*.py"), *ROOT.glob("jobs/*"), PAGE / "index.html", *DOCUMENTS]
    assert [file.name for file in code if re.search(r"What is \d+ ?\+", file.read_text())] == []
