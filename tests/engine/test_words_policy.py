"""Fine-tuning a policy on solutions: what it writes, and that it continues after it was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vgs_ray.errors import UserError
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints
from vgs_ray.words.solution_trainer import POOL, sampling_order, solution_trainer
from vgs_ray.words.train_policy import SETTINGS, Settings, train_policy

SMALL = Settings(init="sandbox:ref", epochs=1, batch_size=4, micro_batch=2, lr=1e-3)


def _data(folder: Path, rows: int) -> Path:
    file = folder / "tuning.jsonl"
    lines = [{"problem": f"Start with {at}. 1) add 2", "solution": f"{at}+2={at + 2}"} for at in range(rows)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_policy_is_a_folder_that_is_made_once(tmp_path: Path) -> None:
    data, out = _data(tmp_path, 8), tmp_path / "policy"
    train_policy(data, out, SMALL)
    assert [path.name for path in tmp_path.iterdir() if "checkpoints" in path.name] == []
    assert json.loads((out / SETTINGS).read_text())["lr"] == 1e-3
    assert prompt_tokens(load_tokenizer(str(out)), "Start with 1.") == prompt_tokens(
        load_tokenizer(str(Path(__file__).parents[2] / "vgs_ray/sandbox/policies/ref")), "Start with 1."
    )
    weights = load_file(out / "model.safetensors")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights.values())
    made = (out / "model.safetensors").stat().st_mtime_ns
    train_policy(data, out, SMALL)
    assert (out / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(UserError, match="with another lr: pass another --out"):
        train_policy(data, out, replace(SMALL, lr=2e-3))


def test_a_batch_that_can_not_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch-size is 4; it must be a multiple of micro-batch"):
        train_policy(_data(tmp_path, 4), tmp_path / "policy", replace(SMALL, micro_batch=3))


def test_the_loss_is_the_models_own_on_the_tokens_of_solutions(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model_path("sandbox:ref"))
    rows = [[5, 6, 7, 8, 9], [5, 6, 7]]
    examples = [{"input_ids": row, "labels": [-100, -100, *row[2:]], "attention_mask": [1] * len(row)} for row in rows]
    checkpoints = TuneCheckpoints(tmp_path, tmp_path, before_commit=lambda: None)
    trainer = solution_trainer(tokenizer, examples, replace(SMALL, dtype="float32"), checkpoints, 1)
    batch = trainer.data_collator(examples)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=4)
    expected = trainer.model(**batch).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    parameters = list(trainer.model.parameters())
    for found, wanted in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert torch.allclose(found, wanted, atol=1e-5)


def test_examples_of_a_forward_pass_have_similar_lengths_in_random_order() -> None:
    settings = Settings(micro_batch=4, epochs=1.5)
    lengths = [10 if at % 2 else 100 for at in range(800)]
    order = sampling_order(lengths, settings)
    assert len(order) == 1200
    assert sorted(order[:800]) == list(range(800))
    kinds = [{lengths[at] for at in order[start : start + 4]} for start in range(0, 1200, 4)]
    assert sum(len(kind) > 1 for kind in kinds) <= 2 * -(-800 // (POOL * 4)), "one at most in each sorted pool"
    changes = sum(before != after for before, after in pairwise(kinds))
    assert 100 < changes < 200
    assert order == sampling_order(lengths, settings) != sampling_order(lengths, replace(settings, seed=1))


@pytest.mark.slow  # three starts of torch
@pytest.mark.timeout(600)
def test_a_killed_run_continues_to_the_same_weights(tmp_path: Path) -> None:
    data = _data(tmp_path, 100)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(SMALL).items()]

    def start(out: str) -> subprocess.Popen[bytes]:
        module = [sys.executable, "-m", "vgs_ray.words.train_policy", "--data", str(data), "--out", str(tmp_path / out)]
        return subprocess.Popen([*module, *options, "--checkpoint-every=5"])

    killed = start("killed")
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("killed-checkpoints-*/checkpoint-*/complete")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    assert [start(out).wait(300) for out in ("killed", "whole")] == [0, 0]
    weights = [load_file(tmp_path / out / "model.safetensors") for out in ("killed", "whole")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])
