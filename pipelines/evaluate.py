"""evaluate: benchmark problems -> `searches` (whole trees), then the report: JSON, CSV, Markdown, LaTeX and figures.

`--from-trees` writes the report again from the stored trees, also at other budgets, without Ray and without an engine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pyarrow as pa
import ray

from pipelines.actors.searching import SearchActor
from pipelines.answer_probabilities import write_probabilities
from pipelines.cli import cli
from pipelines.placement import check_engine_nodes, engine_actors, engine_options
from pipelines.progress import progress, watched
from pipelines.session import ray_session
from pipelines.tables.sources import benchmark_problems, pin_sources
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table
from vgs_ray.answers.judge import Judge
from vgs_ray.config import Evaluate, Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.ids import problem_id
from vgs_ray.data.source_names import benchmark_label
from vgs_ray.errors import UserError
from vgs_ray.evaluate.answer_probability import chosen_answers, fit, probability_rows
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.benchmarks import benchmark_source
from vgs_ray.evaluate.formats import cheaper_line, terminal_table
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import write_report
from vgs_ray.models.checks import evaluated_policy, value_model
from vgs_ray.search.flops import model_sizes

MAX_BLOCK_ROWS, BLOCKS_AT_ONCE = 32, 3
REQUESTS = pa.schema(
    (name, pa.string()) for name in ("search_id", "benchmark", "problem_id", "problem", "answer", "explorer")
)


@dataclass(frozen=True)
class Flags:
    """Options of this command only."""

    from_trees: bool = False
    """Write the report again from the stored trees, without Ray and without an engine."""


def explorers(config: Evaluate) -> list[str]:
    """The names of the searches that each problem gets."""
    greedy = ["greedy"] if config.greedy else []
    return ["sample", "beam", *greedy, *(variant.name for variant in config.variants)]


def searches_of(problem: dict[str, Any], config: Evaluate) -> list[dict[str, Any]]:
    """A row for each explorer. Explorers share no samples, so that the cost of each is its own."""
    columns = problem | {"problem_id": problem_id(problem["problem"])}
    prefix = f"{columns['benchmark']}/{columns['problem_id']}"
    return [columns | {"search_id": f"{prefix}/{name}", "explorer": name} for name in explorers(config)]


def block_rows(searches: int, actors: int) -> int:
    """Searches in a block: few enough that each actor gets `BLOCKS_AT_ONCE` blocks and some actors one more."""
    return max(1, min(searches // (actors * BLOCKS_AT_ONCE), MAX_BLOCK_ROWS))


def search_all(recipe: Recipe, problems: ray.data.Dataset, out: StageTable, expected: int) -> None:
    """Run those of the `expected` searches that are not committed yet."""
    config, done = recipe.evaluate, ray.put(committed_ids(out))
    rows = block_rows(expected, config.resources.replicas)
    check_engine_nodes("evaluate.resources", config.resources)

    def expand(batch: pa.Table) -> pa.Table:
        rows = [row for problem in batch.to_pylist() for row in searches_of(problem, config)]
        return drop_committed(pa.Table.from_pylist(rows, schema=REQUESTS), "search_id", ray.get(done))

    solved = (
        problems.map_batches(expand, batch_format="pyarrow")
        .repartition(target_num_rows_per_block=rows)
        .map_batches(
            SearchActor,
            batch_size=rows,  # one batch a block; Ray Data requires a number for actors with GPUs
            batch_format="pyarrow",
            compute=engine_actors(config.resources.replicas, BLOCKS_AT_ONCE),
            **engine_options(config.resources),
            fn_constructor_kwargs={
                "recipe": recipe,
                "value_model": value_model(recipe, config.value_model),
                "out": out,
            },
        )
    )
    for _ in solved.iter_batches(batch_size=None):
        pass  # the actors write the rows


def benchmark_sources(config: Evaluate) -> dict[str, str]:
    """The source of each benchmark by its label in reports."""
    return {benchmark_label(name): benchmark_source(name, config.benchmark_folder) for name in config.benchmarks}


def all_problems(sources: dict[str, str], limit: int) -> tuple[ray.data.Dataset, int]:
    """The problems of all benchmarks, with the column `benchmark`, and their number."""
    parts, count = [], 0
    for label, source in sources.items():
        problems = benchmark_problems(source, limit)
        count += check_problems(problems, source)
        parts.append(problems.add_column("benchmark", partial(_label, label), batch_format="pyarrow"))
    return (parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]), count


def _label(label: str, batch: pa.Table) -> pa.Array:
    return pa.array([label] * batch.num_rows, pa.string())


def check_problems(problems: ray.data.Dataset, benchmark: str) -> int:
    """The number of problems.

    Raises:
        UserError: a problem has no text or no answer, or occurs twice.
    """
    rows = problems.select_columns(["problem", "answer"]).take_all()
    missing = [index for index, row in enumerate(rows) if not row["problem"] or not row["answer"]]
    if missing or not rows:
        raise UserError(
            f"benchmark {benchmark} has {len(rows)} problems, and rows {missing[:5]} lack a problem or an answer; "
            "every problem needs both: correct the rows or use another benchmark"
        )
    distinct = {problem_id(row["problem"]) for row in rows}
    if len(distinct) < len(rows):
        raise UserError(
            f"benchmark {benchmark} has {len(rows) - len(distinct)} repeated problems; each may occur once: remove the others"
        )
    return len(rows)


def report(recipe: Recipe, out: StageTable) -> dict[str, list[dict[str, Any]]]:
    """Write the report of every method at every budget from the stored searches."""
    config = recipe.evaluate
    sizes = model_sizes(evaluated_policy(recipe), value_model(recipe, config.value_model))
    batches = out.dataset().to_batches()
    trees = {variant.name: variant.mcts for variant in config.variants}
    searches = [
        GradedSearch.from_row(row, sizes, trees.get(row["explorer"])) for batch in batches for row in batch.to_pylist()
    ]
    labels, names = [benchmark_label(name) for name in config.benchmarks], explorers(config)
    searches.sort(key=lambda search: (labels.index(search.benchmark), names.index(search.explorer), search.problem_id))
    with Judge(1, recipe.judge.timeout_s, recipe.judge.memory_gib) as judge:
        equal = cache(judge.equal)
        results = evaluate_methods(searches, config, equal)
        chosen = chosen_answers(searches, config, equal)
    statistics, probabilities = answer_statistics(searches), probability_rows(chosen)
    write_probabilities(recipe, {name: fitted for name, answers in chosen.items() if (fitted := fit(answers))})
    return write_report(out.folder, results, statistics, probabilities, resamples=config.bootstrap, seed=recipe.seed)


def inputs_of(recipe: Recipe) -> tuple[str, ...]:
    """The stages that write the models of the evaluation."""
    config = recipe.evaluate
    shared = recipe.policy_stage == "train"
    written = {"train": not (config.policy if shared else config.value_model), "tune": not config.policy}
    return tuple(stage for stage, needed in written.items() if needed and stage in recipe.stages)


def run(recipe: Recipe) -> None:
    config = recipe.evaluate
    stage = open_stage(recipe, "evaluate", inputs=inputs_of(recipe))
    if stage is None:
        return
    out = stage_table(recipe, "evaluate").claim()
    with ray_session(folder=stage.folder, nodes=stage.nodes):
        sources = pin_sources(stage.folder, benchmark_sources(config))
        problems, count = all_problems(sources, config.limit)
        expected = count * len(explorers(config))
        with progress("evaluate", expected, out.count_rows, unit="search", watch=watched(out)):
            if len(committed_ids(out)) < expected:
                search_all(recipe, problems, out, expected)
            out = stage.publish(out)
            report(recipe, out)
    errors = out.read(["error"])["error"]
    stage.close(searches=out.count_rows(), errors=len(errors) - errors.null_count, benchmarks=sources)


def show(recipe: Recipe) -> None:
    """Print the table of a finished evaluation and the paths of its files."""
    folder = recipe.folder / "evaluate"
    report = json.loads((folder / "report.json").read_text())
    lines = [terminal_table(report["rows"]), cheaper_line(report.get("cheaper", ()))]
    print("\n" + "\n\n".join(filter(None, lines)) + "\n", flush=True)
    print(f"plot: {folder / 'accuracy_vs_flops.png'}\nreport: {folder / 'report.md'}", flush=True)


def main(recipe: Recipe, flags: Flags) -> None:
    if flags.from_trees:
        report_again(recipe)
    else:
        run(recipe)
    show(recipe)


def report_again(recipe: Recipe) -> None:
    """Write the report of the stored searches.

    Raises:
        UserError: no search is stored.
    """
    check_recipe(recipe)
    out = stage_table(recipe, "evaluate")
    if not out.files():
        raise UserError(f"{out.folder} has no searches: run python -m pipelines.evaluate {recipe.name} first")
    report(recipe, out)


if __name__ == "__main__":
    cli(main, "pipelines.evaluate", flags=Flags())
