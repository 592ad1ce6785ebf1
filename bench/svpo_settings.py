r"""Settings of stage tune, one changed at a time, by validation on the sandbox.

    python bench/svpo_settings.py runs/svpo
    python bench/svpo_settings.py runs/svpo --only beta=0.03 paths=256,value_weight=4

Each training reads the pairs and paths of the run. The model is measured on problems that are neither in its trees nor in the
benchmark: greedy, the mean of 4 samples, and the AUC of the value at the ends of the samples; the value also on the validation
pairs and paths. Out: a line for each training, and a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from pipelines.recipes import svpo
from vgs_ray.calibration import auc
from vgs_ray.config import Tune
from vgs_ray.grade import grade
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.tuning.checkpoints import open_checkpoints
from vgs_ray.value.tuning.metrics import last_validation
from vgs_ray.value.tuning.run import tune
from vgs_ray.value.tuning.store import write_store

SETTINGS = (
    "", "beta=0.1", "beta=1", "paths=0", "paths=64", "paths=256", "value_weight=0.25", "value_weight=4", "sft_weight=0",
    "sft_weight=1", "margin_weight=0", "margin_weight=1", "margin=1",
)  # fmt: skip
PROBLEMS, SAMPLES, LONGEST = 200, 4, 192
SEED = 4711
"""Draws other problems than those of the benchmark."""


class Measures:
    """Answers of a model to problems that no run has seen."""

    def __init__(self) -> None:
        self.tokenizer = load_tokenizer(model_path("sandbox:ref"))
        self.rows = list(benchmark_rows(PROBLEMS, SEED))
        instruction = svpo().instruction
        self.prompts = [list(prompt_tokens(self.tokenizer, row["problem"], instruction)) for row in self.rows]

    def __call__(self, model: PolicyValueModel) -> list[float]:
        """Accuracy in % greedy and of samples, and the AUC of the value at the ends of the samples."""
        greedy = self._right(self._answers(model, do_sample=False))
        torch.manual_seed(0)
        samples = [self._answers(model, do_sample=True, temperature=1.0, top_k=0, top_p=1.0) for _ in range(SAMPLES)]
        right = [each for answers in samples for each in self._right(answers)]
        ends = [value for answers in samples for value in self._values(model, answers)]
        return [100 * float(np.mean(greedy)), 100 * float(np.mean(right)), auc(np.array(right), np.array(ends)) or 0.0]

    @torch.no_grad()
    def _answers(self, model: PolicyValueModel, **sampling: Any) -> list[list[int]]:
        width, eos = max(map(len, self.prompts)), self.tokenizer.eos_token_id
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in self.prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in self.prompts])
        out = model.policy.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=LONGEST, pad_token_id=0, eos_token_id=eos, **sampling
        )
        return [row[: row.index(eos) + 1] if eos in row else row for row in out[:, width:].tolist()]

    def _right(self, answers: list[list[int]]) -> list[bool]:
        texts = [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        return [grade(row["answer"], text).outcome == "correct" for row, text in zip(self.rows, texts, strict=True)]

    @torch.no_grad()
    def _values(self, model: PolicyValueModel, answers: list[list[int]]) -> list[float]:
        sequences = [prompt + answer for prompt, answer in zip(self.prompts, answers, strict=True)]
        width = max(map(len, sequences))
        ids = torch.tensor([each + [0] * (width - len(each)) for each in sequences])
        mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in sequences])
        last = [len(each) - 1 for each in sequences]
        return [float(value) for value in model.values(ids, mask)[range(len(sequences)), last]]


def changed(base: Tune, setting: str) -> Tune:
    """The settings with some values changed, given as `field=value,field=value`."""
    pairs = (each.split("=") for each in setting.split(",") if each)
    return replace(base, **{name: type(getattr(base, name))(value) for name, value in pairs})


def train(config: Tune, store: Path, folder: Path) -> tuple[PolicyValueModel, dict[str, float]]:
    rows: list[dict[str, float]] = []
    with open_checkpoints(folder, lambda: None) as checkpoints:
        model = tune(config, store, checkpoints, 0, 1, rows.append).policy_value.eval()
    return model, last_validation(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with a complete stage pairs")
    parser.add_argument("--only", nargs="+", default=SETTINGS, metavar="FIELD=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = replace(svpo().resolved_tune, workers=1, checkpoint_every=10_000, validate_every=10)
    measure, table = Measures(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tables = (options.run / "pairs", options.run / "pairs" / "value_paths")
        pairs, paths = (sorted(table.glob("part-*.parquet")) for table in tables)
        write_store(pairs, paths, folder / "store", base.max_length, len(measure.tokenizer))
        for number, setting in enumerate(options.only):
            begin = time.perf_counter()
            model, validation = train(changed(base, setting), folder / "store", folder / str(number))
            names = ("dpo_accuracy", "value_auc", "node_auc", "node_mse", "answer_auc", "chosen_logp", "rejected_logp")
            found = [validation.get(f"validation_{name}", float("nan")) for name in names]
            table.append([setting or "as in the recipe", *measure(model), *found, time.perf_counter() - begin])
            print(table[-1], flush=True)
    headers = [
        "setting", "greedy", "sampled", "AUC, ends of samples", "DPO accuracy", "AUC, pairs", "AUC, nodes", "MSE, nodes",
        "AUC, ends of paths", "log p, chosen", "log p, rejected", "seconds",
    ]  # fmt: skip
    print(tabulate(table, headers, floatfmt=("", ".1f", ".1f", *[".3f"] * 6, ".2f", ".2f", ".0f")))


if __name__ == "__main__":
    main()
