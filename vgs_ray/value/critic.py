"""Write a value model as a critic for other trainers: python -m vgs_ray.value.critic FOLDER OUT --answers runs/NAME/roll_in.

verl, NeMo-RL and others load a critic with `AutoModelForTokenClassification` and `num_labels=1`. Its head is one linear layer,
and its output after a token is the expected reward.

The head of a `ValueModel` has two layers and a softmax, which one linear layer cannot represent. The layer is therefore fitted to
the model's own values by least squares, on the hidden states of real answers, and its error is measured on other answers. Without
answers, only the head of a `PolicyValueModel` can be written: its linear layer without the tanh.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vgs_ray.data.files import atomic_folder
from vgs_ray.data.parquet import parquet_file
from vgs_ray.data.storage import AnyPath, list_files, storage_path
from vgs_ray.models.folder import VALUE_HEAD, local_folder
from vgs_ray.value.head import own_layers
from vgs_ray.value.model import ValueModel, correct_probs
from vgs_ray.value.packing import bucket_by_length
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.publish import copy_tokenizer
from vgs_ray.value.score_sequences import padded

COLUMNS = {"prompt": ("tokens",), "prompt_ids": ("chosen_ids", "rejected_ids")}
"""Columns with the tokens of a prompt and of its answers, in the tables `roll_ins` and `pairs`."""
FIT_SHARE, RIDGE, MICRO_TOKENS = 0.8, 1e-6, 16_384
CARD = """\
# Critic

`AutoModelForTokenClassification` with one output. `logits[..., 0]` at a token is {output}

Written by `python -m vgs_ray.value.critic` from `{source}`.
"""
FITTED = """\
the expected reward of the finished answer: {wrong:g} if it is incorrect and {right:g} if it is correct.
It is linear in the last hidden state and was fitted to the value model. On {tokens:,} tokens of other answers it explains
{r2:.1%} of the variance of the values, with a root mean square error of {rmse:.4f} and a largest error of {largest:.3f}."""
EXACT = "the exact output of the value head before tanh; tanh of it is Q in [-1, 1]."


class Answer(NamedTuple):
    """Token ids of an answer and its prompt, and the length of the prompt."""

    tokens: list[int]
    start: int


class Source(NamedTuple):
    """A value model, taken apart.

    Attributes:
        backbone: a transformers decoder.
        probs: P(correct), (...), from last hidden states (..., hidden).
        linear: the only layer of its head, before tanh; None if the head has two layers.
    """

    backbone: Any
    probs: Callable[[Tensor], Tensor]
    linear: nn.Linear | None


class Fit(NamedTuple):
    """A linear layer fitted to values, and its error on answers that it was not fitted to.

    Attributes:
        weight: (1, hidden).
        bias: (1,).
        tokens: number of tokens behind the errors.
        rmse, largest: root mean square and largest absolute error, in units of the reward.
        r2: share of the variance of the values that the layer explains.
    """

    weight: Tensor
    bias: Tensor
    tokens: int
    rmse: float
    largest: float
    r2: float


def load_source(folder: Path, device: torch.device) -> Source:
    """Load a value model, or a policy with a value head, in float32.

    Raises:
        ValueError: the folder has neither.
    """
    if (folder / VALUE_HEAD).is_dir() and not own_layers(folder):
        policy = PolicyValueModel.from_pretrained(folder).to(device)
        return Source(policy.policy.base_model, lambda hidden: (policy.q_values(hidden) + 1) / 2, policy.linear)
    model = ValueModel.from_pretrained(folder).to(device)
    return Source(model.model, lambda hidden: correct_probs(model.head(hidden)), None)


def read_answers(folder: AnyPath, most: int) -> list[Answer]:
    """At most `most` answers from the Parquet files of a folder, about the same number from each file.

    Raises:
        ValueError: there are no files, or they have none of the `COLUMNS`.
    """
    files = [folder / name for name in sorted(list_files(folder)) if "/" not in name and name.endswith(".parquet")]
    names = parquet_file(files[0]).schema_arrow.names if files else []
    prompt = next((name for name, responses in COLUMNS.items() if {name, *responses} <= set(names)), None)
    if not prompt:
        expected = " or ".join(f"{name}, {', '.join(responses)}" for name, responses in COLUMNS.items())
        raise ValueError(
            f"{folder} has {len(files)} Parquet files with the columns {', '.join(names) or 'none'}; answers are lists of token "
            f"ids in {expected}: pass the folder of stage roll_in or pairs"
        )
    responses, per_file, answers = COLUMNS[prompt], -(-most // len(files)), list[Answer]()
    for file in files[:most]:
        batches = parquet_file(file).iter_batches(per_file, columns=[prompt, *responses])
        rows: list[dict[str, list[int]]] = next((batch.to_pylist() for batch in batches), [])
        pairs = [(row[prompt], row[name]) for row in rows for name in responses if row[prompt] and row[name]]
        answers += [Answer([*start, *response], len(start)) for start, response in pairs]
    return answers[:most]


def fit_linear(source: Source, answers: Sequence[Answer], rewards: tuple[float, float], bias: bool = True) -> Fit:
    """Fit one linear layer to the values of a model by least squares, at every token of some answers.

    Args:
        source: the model.
        answers: the first 80% are for the fit, the others for its error.
        rewards: reward of a wrong and of a correct answer. The target is the expected reward, low + (high - low) P(correct).
        bias: whether the layer has a bias.

    Raises:
        ValueError: too few answers.
    """
    count, size = int(len(answers) * FIT_SHARE), source.backbone.config.hidden_size + bias
    if count < 1 or sum(len(each.tokens) - each.start + 1 for each in answers[:count]) < size:
        raise ValueError(f"{len(answers)} answers have fewer tokens than the {size} weights to fit: pass more answers")
    device = source.backbone.device
    moments, targets = (
        torch.zeros(size, size, dtype=torch.float64, device=device),
        torch.zeros(size, dtype=torch.float64, device=device),
    )
    for states, values in _states(source, answers[:count], rewards, bias):
        moments += states.T @ states
        targets += states.T @ values
    moments.diagonal().add_(RIDGE * moments.diagonal().mean())
    solution = torch.linalg.solve(moments, targets)
    pairs = [(states @ solution, values) for states, values in _states(source, answers[count:], rewards, bias)]
    fitted, values = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    errors = fitted - values
    weight, constant = (solution[:-1], solution[-1:]) if bias else (solution, torch.zeros_like(solution[:1]))
    return Fit(
        weight[None].float().cpu(), constant.float().cpu(), len(values), errors.square().mean().sqrt().item(),
        errors.abs().max().item(), 1 - (errors.square().sum() / (values - values.mean()).square().sum()).item(),
    )  # fmt: skip


@torch.no_grad()
def _states(
    source: Source, answers: Sequence[Answer], rewards: tuple[float, float], bias: bool
) -> Iterable[tuple[Tensor, Tensor]]:
    """Hidden states, (tokens, hidden), and expected rewards, (tokens,), of answers from the end of their prompts, in float64."""
    (low, high), device = rewards, source.backbone.device
    lengths = np.array([len(answer.tokens) for answer in answers])
    for batch in tqdm(bucket_by_length(lengths, MICRO_TOKENS), desc="states", ncols=100, leave=False):
        ids, mask = padded([np.array(answers[index].tokens) for index in batch])
        starts = torch.tensor([answers[index].start for index in batch])
        chosen = (mask > 0) & (torch.arange(ids.shape[1]) >= starts[:, None] - 1)
        states = source.backbone(ids.to(device), mask.to(device), use_cache=False).last_hidden_state[chosen.to(device)]
        values = low + (high - low) * source.probs(states).double()
        states = states.double()
        yield torch.cat([states, torch.ones_like(states[:, :1])], 1) if bias else states, values


def save_critic(source: Source, weight: Tensor, bias: Tensor, tokenizer: Path, card: str, out: Path) -> None:
    """Write the backbone with a linear layer as a token classifier with one output, with the tokenizer of a folder.

    Args:
        source: the model.
        weight, bias: (1, hidden) and (1,), of the layer.
        tokenizer: folder with tokenizer files.
        card: text of README.md.
        out: folder, replaced if it exists.
    """
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(source.backbone.config)
    config.num_labels, config.classifier_dropout = 1, 0.0
    with torch.device("meta"):
        model = AutoModelForTokenClassification.from_config(config)
    setattr(model, model.base_model_prefix, source.backbone)
    model.score = nn.Linear(config.hidden_size, 1)
    model.score.load_state_dict({"weight": weight.detach().cpu(), "bias": bias.detach().cpu()})
    with atomic_folder(out) as temporary:
        model.cpu().save_pretrained(temporary)
        (temporary / "README.md").write_text(card)
        copy_tokenizer(str(tokenizer), temporary)


def export_critic(
    folder: Path, out: Path, answers: AnyPath | None, rewards: tuple[float, float], most: int, bias: bool
) -> str:
    """Write the critic. Returns what its output is, with the error of the fit.

    Raises:
        ValueError: the model or the answers can't be read, or a head of two layers has no answers to fit to.
    """
    source = load_source(folder, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if answers:
        fit = fit_linear(source, read_answers(answers, most), rewards, bias)
        weight, constant = fit.weight, fit.bias
        output = FITTED.format(wrong=rewards[0], right=rewards[1], **fit._asdict())
    elif source.linear:
        weight, constant, output = source.linear.weight, source.linear.bias, EXACT
    else:
        raise ValueError(
            f"{folder} has a head of two layers, which the single linear layer of a critic can't represent: pass --answers "
            "FOLDER to fit that layer to the values of real answers"
        )
    save_critic(source, weight, constant, folder, CARD.format(output=output, source=folder), out)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vgs_ray.value.critic", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument(
        "folder", help="folder, URL or Hugging Face id of a value model, or of a policy with a value head"
    )
    parser.add_argument("out", type=Path, help="folder to write; replaced if it exists")
    parser.add_argument(
        "--answers", type=storage_path, help="folder or URL with the Parquet files of stage roll_in or pairs"
    )
    parser.add_argument("--most", type=int, default=512, help="number of answers to read at most (default 512)")
    parser.add_argument(
        "--rewards",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        help="rewards of a wrong and of a correct answer (default 0 1)",
    )
    parser.add_argument(
        "--no-bias", action="store_true", help="fit a layer without a bias, for trainers that do not load it"
    )
    given = parser.parse_args()
    try:
        low, high = given.rewards
        output = export_critic(
            local_folder(given.folder), given.out, given.answers, (low, high), given.most, not given.no_bias
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"wrote {given.out}: logits[..., 0] is {output}")


if __name__ == "__main__":
    main()
