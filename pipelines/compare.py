"""compare: finished evaluations of several runs -> one table and figures, in `{root}/{run_name}/compare/`.

    python -m pipelines.compare tvm --runs tvm_orm tvm_prm tvm_vgs tvm

The runs are folders in the same root. They must have the same benchmarks and problems. Nothing is searched again, and no Ray
session is started. If the recipe's run has labels, the value models of all runs are also read along the same held-out answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.csv import write_csv
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.tables.held_out import held_out_answers
from vgs_ray.config import Recipe
from vgs_ray.data.files import atomic_folder, write_json
from vgs_ray.data.storage import AnyPath, storage_path
from vgs_ray.errors import UserError
from vgs_ray.evaluate.comparison import compare_runs, read_field, read_run
from vgs_ray.evaluate.comparison_formats import markdown, terminal_table
from vgs_ray.evaluate.value_curves import value_curves
from vgs_ray.models import model_path
from vgs_ray.models.folder import CONFIG, VALUE_HEAD, local_folder
from vgs_ray.prompts import delimiter_tokens, load_tokenizer

Tokens = NDArray[np.int32]
JSON, CSV, MARKDOWN = "compare.json", "compare.csv", "compare.md"


@dataclass(frozen=True)
class Flags:
    """Options of this command only."""

    runs: tuple[str, ...] = ()
    """Names of the runs in the root, at least two. Each run is also compared with those before it, problem by problem."""
    methods: tuple[str, ...] = ()
    """Methods to compare, as reports name them, such as best_of_n. If empty, the votes and the best answer of samples and of the
    guided search, and the weighted majority of each variant."""
    budgets: tuple[int, ...] = ()
    """Budgets to compare. If empty, the largest one of each method that the runs share."""
    against: str = ""
    """Numeric field of the runs, such as label.paths, to plot accuracies and Brier scores against."""
    answers: int = 200
    """Number of held-out answers of this recipe's run along which the value models are read; 0 for none. A model of billions of
    parameters needs a GPU for them."""


def run(recipe: Recipe, flags: Flags) -> None:
    root, folder = storage_path(recipe.root), recipe.folder / "compare"
    runs = [read_run(root, name) for name in flags.runs]
    comparison = compare_runs(runs, flags.methods, flags.budgets, recipe.evaluate.bootstrap, recipe.seed)
    if flags.against:
        numbers = {name: read_field(root, name, flags.against) for name in flags.runs}
        comparison["against"] = {"field": flags.against, "numbers": numbers}
    if flags.answers > 0:
        add_held_out(comparison, recipe, flags)
    write_comparison(comparison, folder)
    print(
        f"\n{terminal_table(comparison)}\n\ntables: {folder / MARKDOWN}\nplot: {folder / 'accuracy_by_run.png'}",
        flush=True,
    )


def write_comparison(comparison: dict[str, Any], folder: AnyPath) -> None:
    """Replace the folder by the tables and figures of a comparison."""
    from vgs_ray.evaluate.plot_comparison import draw_comparison  # --help and errors need no matplotlib

    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        figures = draw_comparison(comparison, temporary)
        write_csv(pa.Table.from_pylist(comparison["rows"]), temporary / CSV)
        (temporary / MARKDOWN).write_text(markdown(comparison, figures))
        write_json(temporary / JSON, comparison)


def add_held_out(comparison: dict[str, Any], recipe: Recipe, flags: Flags) -> None:
    """Add `held_out`: the values of each run's value model along the same held-out answers, and their metrics."""
    models = {name: folder for name in flags.runs if (folder := value_folder(storage_path(recipe.root) / name))}
    tokenizer, delimiter = load_tokenizer(model_path(recipe.policy.model)), delimiter_of(recipe)
    ends = delimiter_tokens(tokenizer, delimiter) if delimiter else ()
    answers = held_out_answers(recipe, flags.answers, ends) if models else []
    if not answers:
        return
    values = dict(score_all(models, [answer.tokens for answer in answers]))
    starts = [answer.start for answer in answers]
    of_answers = {run: [each[at:] for each, at in zip(every, starts, strict=True)] for run, every in values.items()}
    curves = value_curves(answers, of_answers)
    for answer in (answer for example in curves["examples"] for answer in example["answers"]):
        bounds = [0, *(end + 1 for end in answer["step_ends"]), len(answer["tokens"])]
        answer["steps"] = [tokenizer.decode(answer["tokens"][a:b]).strip() for a, b in pairwise(bounds)]
    comparison["held_out"] = curves
    for model in comparison["value_models"]:
        if model["run"] in curves["runs"]:
            of_run = curves["runs"][model["run"]]
            model["held_out"] = {
                where: of_run[where] for where in ("tokens", "steps", "ranked_pairs") if where in of_run
            }


def value_folder(run: AnyPath) -> AnyPath | None:
    """The value model that a run trained, or its policy with a value head; None if it has neither."""
    own, policy = run / "train" / "value_model", run / "tune" / "model"
    if (own / CONFIG).is_file():
        return own
    return policy if (policy / VALUE_HEAD / CONFIG).is_file() else None


def score_all(
    models: dict[str, AnyPath], sequences: Sequence[Tokens]
) -> Iterator[tuple[str, list[NDArray[np.float32]]]]:
    """The values of each run along the sequences, run by run."""
    import torch

    from vgs_ray.value.score_sequences import token_probs

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, folder in tqdm(models.items(), desc="values", unit="run", ncols=100, leave=False):
        try:
            yield name, token_probs(local_folder(str(folder)), sequences, device)
        except ValueError as error:
            raise UserError(str(error)) from None


def delimiter_of(recipe: Recipe) -> str:
    """The text that ends a step of the labels, or in the first search of the evaluation that has one; empty if none has."""
    shapes = [recipe.label, recipe.evaluate.beam, *(variant.shape for variant in recipe.evaluate.variants)]
    return next((shape.delimiter for shape in shapes if shape.delimiter), "")


if __name__ == "__main__":
    cli(run, "pipelines.compare", writes=False, flags=Flags())
