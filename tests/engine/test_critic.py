"""A critic for other trainers: transformers loads it as verl and NeMo-RL do, and its outputs are the model's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForTokenClassification

from vgs_ray.value import critic
from vgs_ray.value.critic import Answer, export_critic, fit_linear, load_source, read_answers
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel

BATCH = torch.tensor([[5, 9, 23, 40, 7], [11, 4, 98, 33, 2]])


@pytest.fixture(scope="module")
def policy_value_folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = PolicyValueModel.from_policy(policy_folder, seed=1, slot=119)
    torch.nn.init.normal_(model.linear.weight, std=0.1)
    torch.nn.init.constant_(model.linear.bias, 0.25)
    folder = tmp_path_factory.mktemp("policy_value")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random answers in two files of the table `roll_ins`, some of them empty."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("roll_in")
    for file in range(2):
        lengths = draw.integers(0, 30, 80)
        rows = [{"prompt": [3, 4], "tokens": draw.integers(0, 119, int(size)).tolist()} for size in lengths]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{file}.parquet")
    return folder


def load(folder: Path) -> Any:
    """As verl loads it: a configuration with one label and no dropout."""
    config = AutoConfig.from_pretrained(folder)
    config.num_labels, config.classifier_dropout, config.hidden_dropout = 1, 0.0, "0"
    model, info = AutoModelForTokenClassification.from_pretrained(folder, config=config, output_loading_info=True)
    assert not any(info.values()), info
    assert (model.config.num_labels, model.score.weight.shape[0], model.score.bias.shape) == (1, 1, (1,))
    return model.eval()


@torch.no_grad()
def outputs(folder: Path, batch: torch.Tensor) -> torch.Tensor:
    return load(folder)(batch).logits[..., 0]


def test_the_head_of_a_policy_is_exact_before_tanh(policy_value_folder: Path, tmp_path: Path) -> None:
    export_critic(policy_value_folder, tmp_path / "critic", None, (0.0, 1.0), 100, True)
    with torch.no_grad():
        q = PolicyValueModel.from_pretrained(policy_value_folder).values(BATCH)
    assert torch.allclose(outputs(tmp_path / "critic", BATCH).tanh(), q, atol=1e-6)
    assert q.std() > 0.01


@pytest.mark.parametrize("kind", ["value model", "policy"])
def test_a_fitted_critic_has_the_error_that_it_states(
    kind: str, value_folder: Path, policy_value_folder: Path, answers: Path, tmp_path: Path
) -> None:
    folder = value_folder if kind == "value model" else policy_value_folder
    source, read = load_source(folder, torch.device("cpu")), read_answers(answers, 1000)
    fit = fit_linear(source, read, (0.0, 1.0))
    text = export_critic(folder, tmp_path / "critic", answers, (0.0, 1.0), 1000, True)
    assert f"{fit.r2:.1%}" in text
    assert text in (tmp_path / "critic" / "README.md").read_text()
    probs = ValueModel.from_pretrained(folder).success_probs if kind == "value model" else None
    model, errors = load(tmp_path / "critic"), []
    policy = None if probs else PolicyValueModel.from_pretrained(folder)
    with torch.no_grad():
        for answer in read[int(0.8 * len(read)) :]:
            batch = torch.tensor([answer.tokens])
            values = probs(batch) if probs else (policy.values(batch) + 1) / 2
            errors.append((model(batch).logits[..., 0] - values)[0, answer.start - 1 :])
    assert torch.cat(errors).square().mean().sqrt().item() == pytest.approx(fit.rmse, rel=1e-3)
    assert fit.tokens == len(torch.cat(errors))
    assert fit.r2 > 0.5  # a constant has 0


def test_rewards_scale_the_output_and_a_bias_may_be_left_out(value_folder: Path, answers: Path) -> None:
    source, read = load_source(value_folder, torch.device("cpu")), read_answers(answers, 100)
    unit, signed = (fit_linear(source, read, rewards) for rewards in ((0.0, 1.0), (-1.0, 1.0)))
    assert torch.allclose(2 * unit.weight, signed.weight, atol=1e-4)
    assert torch.allclose(2 * unit.bias - 1, signed.bias, atol=1e-4)
    without = fit_linear(source, read, (0.0, 1.0), bias=False)
    assert without.bias.item() == 0
    assert without.rmse != unit.rmse


def test_what_can_not_be_written_is_refused(
    value_folder: Path,
    answers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["critic", str(value_folder), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        critic.main()
    assert "which the single linear layer of a critic can't represent: pass --answers" in capsys.readouterr().err
    with pytest.raises(ValueError, match="0 Parquet files with the columns none"):
        read_answers(tmp_path, 10)
    assert len(read_answers(answers, 7)) <= 7
    pair = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5], "depth": 1}
    pq.write_table(pa.Table.from_pylist([pair]), tmp_path / "part-0.parquet")
    assert read_answers(tmp_path, 10) == [Answer([1, 2, 3], 2), Answer([1, 2, 4, 5], 2)]
    with pytest.raises(ValueError, match="1 answers have fewer tokens than the 65 weights to fit"):
        fit_linear(load_source(value_folder, torch.device("cpu")), [Answer([1, 2], 1)], (0.0, 1.0))
    assert not (tmp_path / "out").exists()
