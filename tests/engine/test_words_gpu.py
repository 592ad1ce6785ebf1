"""`bench/words_gpu.py` and its engines on a CPU, without the packages that a machine with only torch and transformers lacks."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batched_engines import Batcher, Call, TransformersPolicy, TransformersValue, completion_of
from transformers import AutoModelForCausalLM

from vgs_ray.config import Sampling
from vgs_ray.models import model_path
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.value.model import ValueModel
from vgs_ray.value.score_sequences import token_probs

ROOT, CPU = Path(__file__).parents[2], torch.device("cpu")
BARE = """
import runpy, sys
for name in ("ray", "vllm", "datasets", "pydantic", "trl", "tyro"):
    sys.modules[name] = None  # as if it was not installed
sys.argv[:1] = ["words_gpu.py"]
runpy.run_path("bench/words_gpu.py", run_name="__main__")
"""
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems of the sandbox in the layout of the word problems."""
    folder, rows = tmp_path_factory.mktemp("data"), list(benchmark_rows(80))
    parts = {"benchmark": rows[:10], "problems": rows[10:40], "tuning": rows[40:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def prompts(count: int) -> list[tuple[int, ...]]:
    tokenizer = load_tokenizer(model_path("sandbox:ref"))
    return [prompt_tokens(tokenizer, row["problem"]) for row in benchmark_rows(count)]


@pytest.fixture(params=["batched", "continuous"])
def policy(request: pytest.FixtureRequest) -> Iterator[TransformersPolicy]:
    made = TransformersPolicy(model_path("sandbox:ref"), CPU, 512, 4, request.param, seed=0)
    yield made
    made.close()


async def test_greedy_completions_are_those_of_the_model_one_token_at_a_time(policy: TransformersPolicy) -> None:
    limits, model = [3, 24, 9, 24, 24], AutoModelForCausalLM.from_pretrained(model_path("sandbox:ref"))
    calls = [(prompt, replace(GREEDY, max_tokens=limit)) for prompt, limit in zip(prompts(5), limits, strict=True)]
    found = await asyncio.gather(*(policy.extend(*call, seed=0) for call in calls))
    for (prompt, sampling), completion in zip(calls, found, strict=True):
        tokens = list(prompt)
        with torch.no_grad():
            for _ in range(sampling.max_tokens):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert completion.tokens == tuple(tokens[len(prompt) :])
        assert (completion.finish_reason, completion.prefilled) == ("length", len(prompt))
    assert policy.usage.generated == sum(limits)


async def test_a_completion_ends_at_a_stop_token(policy: TransformersPolicy) -> None:
    tokenizer, [prompt] = load_tokenizer(model_path("sandbox:ref")), prompts(1)
    stops = delimiter_tokens(tokenizer, ";")
    block = await policy.extend(prompt, replace(GREEDY, stop_token_ids=stops, max_tokens=200), seed=0)
    assert block.tokens[-1] in stops
    assert not {*block.tokens[:-1]} & {*stops}
    assert (block.finished, block.finish_reason) == (False, "stop")
    answer = await policy.extend(prompt, replace(GREEDY, max_tokens=200), seed=0)
    assert (answer.finished, answer.finish_reason) == (True, "stop")
    assert answer.tokens[-1] in policy.ends
    assert math.isnan(answer.mean_logprob)


def test_what_is_sampled_after_the_end_of_a_call_is_dropped() -> None:
    call = Call((1,), Sampling(max_tokens=4, stop_token_ids=(7,)))
    ends = frozenset([9])
    assert completion_of([5, 9, 0, 0, 0], call, ends)[:3] == ((5, 9), True, "stop")
    assert completion_of([5, 7, 9, 0, 0], call, ends)[:3] == ((5, 7), False, "stop")
    assert completion_of([5, 5, 5, 5, 9], call, ends)[:3] == ((5, 5, 5, 5), False, "length")


async def test_calls_of_one_kind_share_a_batch_also_those_that_follow_from_results() -> None:
    batches: list[list[int]] = []

    def run(batch: list[int]) -> list[int]:
        batches.append(batch)
        return [-each for each in batch]

    batcher = Batcher(run, rows=3, patience=20, kind=lambda number: number % 2)

    async def two_calls(number: int) -> int:
        return await batcher.submit(-await batcher.submit(number) + 10)

    assert await asyncio.gather(*map(two_calls, [0, 1, 2, 4, 6])) == [-10, -11, -12, -14, -16]
    assert batches == [[0, 2, 4], [1], [6, 10, 12], [14, 16], [11]]


async def test_the_error_of_a_batch_is_that_of_its_calls() -> None:
    def run(batch: list[int]) -> list[float]:
        return [1 / each for each in batch]

    batcher = Batcher(run, rows=2, patience=1, kind=lambda number: None)
    found = await asyncio.gather(*map(batcher.submit, [0, 1, 2, 4]), return_exceptions=True)
    assert [type(each) for each in found[:2]] == [ZeroDivisionError] * 2
    assert found[2:] == [0.5, 0.25]


async def test_values_are_those_of_whole_sequences(tmp_path: Path) -> None:
    ValueModel.from_backbone(model_path("sandbox:ref")).save_pretrained(tmp_path)
    value, sequences = TransformersValue(str(tmp_path), CPU, micro_tokens=300), prompts(4)
    scores = await asyncio.gather(*(value.score(tokens) for tokens in sequences))
    expected = token_probs(tmp_path, [np.array(tokens, np.int32) for tokens in sequences], CPU)
    assert [score.value for score in scores] == pytest.approx([float(probs[-1]) for probs in expected], abs=1e-5)
    assert value.usage.scored == sum(map(len, sequences))


@pytest.mark.timeout(900)
def test_all_steps_run_and_are_done_once(data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'bench'}", "OMP_NUM_THREADS": "1"}
    options = ["--model", "sandbox:ref", "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--small"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BARE, *options, "--delimiter", ";", *more]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("loaded of ray, vllm, datasets, pydantic: none")
    assert "auc 0." in done.stdout
    assert "vgs_weighted_majority" in done.stdout
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert {row["problems"] for row in rows} == {6}
    shutil.rmtree(tmp_path / "report")
    again = run("--rows", "7")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("nothing to do") == 7
    assert "was begun with other options" in run("--cuts", "1").stderr
