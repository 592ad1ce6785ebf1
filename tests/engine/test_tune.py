"""Training on pairs: the losses, TRL's trainer with the value head, resuming, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_pairs import LONGEST, VOCABULARY, make_policy, pair_rows, path_rows, write_store
from transformers import AutoModelForCausalLM, TrainerCallback
from upath import UPath

from vgs_ray.config import Tune
from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError
from vgs_ray.prompts import load_tokenizer
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints, open_checkpoints
from vgs_ray.value.tuning.diverged import TuneDivergedError
from vgs_ray.value.tuning.losses import margin_loss, pair_losses, squared_error
from vgs_ray.value.tuning.pairs import count_pairs, open_pairs
from vgs_ray.value.tuning.paths import ValuePaths
from vgs_ray.value.tuning.run import training_arguments, tune
from vgs_ray.value.tuning.trainer import TuneTrainer

CONFIG = Tune(
    batch_size=8, paths=4, micro_batch=4, epochs=2, lr=2e-3, head_lr=1e-2, warmup_share=0.0, bf16=False, workers=1,
    gpus_per_worker=0.0, checkpoint_every=3, validate_every=4, activations="keep",
)  # fmt: skip
Row = dict[str, float]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For a model as small as this one, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_policy(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("pairs"))


def ignore(row: Row) -> None:
    pass


def weights_of(trainer: TuneTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.whole_weights().items()}


number = st.floats(-1, 1, width=32)


@given(st.lists(st.tuples(number, number, number, number), min_size=1, max_size=6), st.floats(0, 2))
def test_value_losses_are_their_equations(pairs: list[tuple[float, ...]], margin: float) -> None:
    chosen, rejected, q_chosen, q_rejected = torch.tensor(pairs, dtype=torch.float64).T
    errors = [((v - q) ** 2 + (w - r) ** 2) / 2 for v, w, q, r in pairs]
    hinges = [max(0.0, margin - (v - w)) for v, w, _, _ in pairs]
    assert squared_error(chosen, rejected, q_chosen, q_rejected).tolist() == pytest.approx(errors)
    assert margin_loss(chosen, rejected, margin).tolist() == pytest.approx(hinges)


def test_weights_of_zero_leave_a_loss_out() -> None:
    log_probs, mask = torch.tensor([[-1.0, -3.0, 0.0], [0.0, -2.0, -2.0]]), torch.tensor([[1, 1, 0], [0, 1, 1]])
    losses = pair_losses(log_probs, mask, torch.tensor([0.5, math.nan]), torch.tensor([1.0, -1.0]), 0.5)
    assert losses.sft.tolist() == [2.0]
    assert losses.total(0.5, 0.0, 0.0).item() == 1.0
    assert losses.total(0.5, 1.0, 0.0).isnan()


@pytest.mark.parametrize(("loss", "paths"), [("dpo", 0), ("dpo", 8), ("sft", 8), ("none", 8)])
def test_a_step_is_the_joint_loss_of_plain_pytorch(
    init: str, store: Path, tmp_path: Path, loss: Any, paths: int
) -> None:
    """All pairs and paths in four padded forward passes, against each sequence alone; the policy differs from the reference."""
    config = replace(
        CONFIG, init=init, loss=loss, batch_size=32, paths=paths, micro_batch=8, dropout=0.0, clip_norm=1e9, epochs=1
    )
    model, plain = PolicyValueModel.from_policy(init, 0.0), PolicyValueModel.from_policy(init, 0.0)
    for each in (model, plain):
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in each.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.05)
    reference = AutoModelForCausalLM.from_pretrained(init)
    arguments = training_arguments(config, tmp_path, seed=0, workers=1, steps=1, validates=False)
    rows: list[Row] = []
    gradients: dict[str, torch.Tensor] = {}
    trainer = TuneTrainer(
        model, reference if loss == "dpo" else None, config, (open_pairs(store, "train"), None),
        (ValuePaths(store, "train"), ValuePaths(store, "validation")), rows.append,
        TuneCheckpoints(tmp_path, tmp_path, lambda: None), args=arguments,
        processing_class=load_tokenizer(init), callbacks=[Gradients(model, gradients)],
    )  # fmt: skip
    trainer.train()
    expected = joint_loss(plain, reference, open_pairs(store, "train"), path_rows()[:paths], config)
    expected.backward()
    assert rows[-1]["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for name, weight in plain.named_parameters():
        if loss == "none" and name.startswith("policy."):
            assert name not in gradients
        else:
            torch.testing.assert_close(gradients[name], weight.grad, atol=2e-5, rtol=1e-4, msg=name)


class Gradients(TrainerCallback):
    """Copies the gradients of a step."""

    def __init__(self, model: PolicyValueModel, copies: dict[str, torch.Tensor]) -> None:
        self.model, self.copies = model, copies

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        for name, weight in self.model.named_parameters():
            if weight.grad is not None:
                self.copies[name.replace("policy.value_head.", "head.")] = weight.grad.clone()


def joint_loss(
    model: PolicyValueModel, reference: Any, pairs: Any, paths: list[dict[str, Any]], config: Tune
) -> torch.Tensor:
    """The loss of all pairs from their logits and of all nodes of paths, one sequence at a time."""
    total, errors = torch.zeros(()), []
    for pair in pairs:
        logps, ratios, values = [], [], []
        for side in ("chosen_ids", "rejected_ids"):
            ids, start = torch.tensor([pair["prompt_ids"] + pair[side]]), len(pair["prompt_ids"])
            logps.append(token_logps(model.policy, ids)[start - 1 :])
            with torch.no_grad():
                base = token_logps(reference, ids)[start - 1 :].sum()
            ratios.append(logps[-1].sum() - base)
            values.append(model.values(ids)[0, -1])
        dpo = -torch.nn.functional.logsigmoid(config.beta * (ratios[0] - ratios[1]))
        errors += [(values[0] - pair["q_chosen"]) ** 2, (values[1] - pair["q_rejected"]) ** 2]
        hinge = torch.clamp(config.margin - (values[0] - values[1]), min=0)
        policy_loss = {"dpo": dpo - config.sft_weight * logps[0].mean(), "sft": -logps[0].mean(), "none": 0.0}
        total = total + policy_loss[config.loss] + config.margin_weight * hinge
    for path in paths:
        nodes = zip(path["positions"], path["q"], strict=True)
        squares = [(model.values(torch.tensor([path["tokens"]]))[0, at] - q) ** 2 for at, q in nodes]
        errors.append(sum(squares, start=torch.zeros(())) / len(squares))
    return total / len(pairs) + config.value_weight * torch.stack(errors).mean()


def token_logps(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(length - 1,) log-probability of each token after the first."""
    return model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def run(config: Tune, store: Path, folder: AnyPath, report: Callable[[Row], None]) -> TuneTrainer:
    with open_checkpoints(folder, lambda: None) as checkpoints:
        return tune(config, store, checkpoints, 0, 1, report)


def stop_at(step: int, rows: list[Row]) -> Callable[[Row], None]:
    def report(row: Row) -> None:
        if row["step"] == step:
            raise InterruptedError
        rows.append(row)

    return report


def test_a_resumed_run_equals_an_uninterrupted_one(init: str, store: Path, tmp_path: Path, any_root: UPath) -> None:
    config, rows, resumed = replace(CONFIG, init=init), [], []
    trainer = run(config, store, tmp_path / "whole", rows.append)
    whole = weights_of(trainer)
    with pytest.raises(InterruptedError):
        run(config, store, any_root / "cut", stop_at(5, resumed))
    killed = any_root / "cut/checkpoint-4"  # its writer was killed
    killed.mkdir(parents=True, exist_ok=True)
    (killed / "optimizer.pt").write_bytes(b"")
    continued = weights_of(run(config, store, any_root / "cut", resumed.append))
    assert all(torch.equal(continued[name], weight) for name, weight in whole.items())
    assert trainer.policy_value.policy.generate(torch.tensor([[5, 6]]), max_new_tokens=2).shape == (
        1,
        4,
    )  # as any other policy
    steps = [row["step"] for row in resumed if "validation_loss" not in row]
    assert steps == [1, 2, 3, 4, 4, 5, 6, 7, 8]  # the checkpoint is that of step 3
    newest = TuneCheckpoints(any_root / "cut", tmp_path, lambda: None).newest()
    assert newest
    assert newest[0].name == "checkpoint-8"
    first, last = rows[0], rows[-1]
    assert last["loss"] < first["loss"]
    learned = ("dpo_accuracy", "value_accuracy", "value_auc", "node_auc", "answer_auc")
    assert min(last[f"validation_{name}"] for name in learned) > 0.7


def test_the_size_of_a_forward_pass_changes_nothing(init: str, store: Path, tmp_path: Path) -> None:
    small, large = (
        weights_of(
            run(
                replace(CONFIG, init=init, micro_batch=size, dropout=0.0, epochs=1), store, tmp_path / str(size), ignore
            )
        )
        for size in (2, 8)
    )
    for name, weight in large.items():
        torch.testing.assert_close(small[name], weight, atol=1e-4, rtol=1e-3)


def test_a_frozen_policy_stays_as_it_is(init: str, store: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    trainer = run(replace(CONFIG, init=init, loss="none", weight_decay=0.1), store, tmp_path, rows.append)
    weights, before = trainer.whole_weights(), PolicyValueModel.from_policy(init).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in before.items() if name.startswith("policy."))
    assert not torch.equal(weights["head.1.weight"], before["head.1.weight"])
    errors = [row["value_mse"] for row in rows if "validation_loss" not in row]
    assert sum(errors[4:]) < sum(errors[:4])  # the second pass over the pairs against the first
    assert not any("dpo" in name for row in rows for name in row)


def test_nothing_to_validate_on(init: str, tmp_path: Path) -> None:
    rows: list[Row] = []
    store = write_store(tmp_path, pair_rows(8, 0), path_rows(8, 0))
    run(replace(CONFIG, init=init, epochs=1), store, tmp_path / "checkpoints", rows.append)
    assert [row["step"] for row in rows] == [1]


def test_a_pair_without_a_finite_loss_is_named(init: str, tmp_path: Path) -> None:
    rows = pair_rows()
    rows[5]["q_chosen"] = math.nan
    with pytest.raises(TuneDivergedError, match=r"^the loss of step \d is NaN or infinite.*pairs: p05/tree/0/1/2$"):
        run(replace(CONFIG, init=init), write_store(tmp_path, rows), tmp_path / "checkpoints", ignore)


def test_long_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = pair_rows()[::-1]
    rows[0]["chosen_ids"] = [7] * (LONGEST + 1 - len(rows[0]["prompt_ids"]))
    rows[-1]["prompt_ids"] = [5] * LONGEST
    store = write_store(tmp_path, rows)
    assert count_pairs(store) == {"train": 31, "validation": 7, "left_out": 2}
    pairs = open_pairs(store, "train")
    assert pairs["pair_id"] == sorted(row["pair_id"] for row in rows[8:-1])
    assert (
        pairs[3]["rejected_ids"] == next(row for row in rows if row["pair_id"] == pairs[3]["pair_id"])["rejected_ids"]
    )


@pytest.mark.parametrize(
    ("column", "tokens", "error"),
    [
        ("rejected_ids", [9, VOCABULARY], f"p04/.* has the token id {VOCABULARY} in rejected_ids.*--tune.init"),
        ("prompt_ids", [-1], "p04/.* has the token id -1"),
        ("chosen_ids", [], "p04/.* has no token in chosen_ids"),
    ],
)
def test_pairs_that_the_policy_cannot_read_are_refused(
    tmp_path: Path, column: str, tokens: list[int], error: str
) -> None:
    rows = pair_rows()
    rows[4][column] = tokens
    with pytest.raises(UserError, match=error):
        write_store(tmp_path, rows)
    assert not (tmp_path / "store").exists()
