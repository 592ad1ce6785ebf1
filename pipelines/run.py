"""run: all stages of a recipe in order, then the report and one question to the served search.

Finished stages are skipped and an interrupted stage continues, so the same command always reaches the same result. With
`--rounds`, later rounds go on from the models of the earlier ones, and a table compares the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import clean, evaluate, label, pairs, roll_in, roll_out, serve, train, trees, tune, verify
from pipelines.cli import cli
from pipelines.recipes.rounds import next_round
from pipelines.session import ray_session
from pipelines.tables.sources import benchmark_problems
from pipelines.tables.stage import locked
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.errors import UserError
from vgs_ray.evaluate.rounds import round_rows, write_rounds
from vgs_ray.models.checks import check_models

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (clean, roll_in, roll_out, verify, label, train, trees, pairs, tune, evaluate)
}


@dataclass(frozen=True)
class Flags:
    """Options of this command only."""

    rounds: int = 1
    """Number of rounds. Round 1 is the run of the recipe. Round r is the run RUN_NAME-round-r, which goes on from the model of
    round r - 1, and a table in the folder of round 1 compares all rounds."""


def run(recipe: Recipe, flags: Flags) -> None:
    rounds = recipes_of_rounds(recipe, flags.rounds)
    check_pending_models(recipe)
    with ray_session(recipe.serve):
        run_stages(recipe)
        for later in rounds[1:]:
            print(f"\n{later.run_name}", flush=True)
            check_pending_models(later)
            with locked(later.folder):
                run_stages(later)
        if len(rounds) > 1:
            show_rounds(rounds)
        ask(rounds[-1])


def recipes_of_rounds(recipe: Recipe, count: int) -> list[Recipe]:
    """The recipes of rounds 1 to `count`.

    Raises:
        UserError: there is no such number of rounds, or a round can't run.
    """
    if count < 1:
        raise UserError(f"rounds is {count}; a run has at least one round: pass --rounds 1 or more")
    rounds = [next_round(recipe, number) for number in range(1, count + 1)]
    for each in rounds:
        check_recipe(each)
    return rounds


def check_pending_models(recipe: Recipe) -> None:
    """Check the models of all stages that are not complete, before the first one takes hours."""
    for name in recipe.stages:
        if not (recipe.stage_folder(name) / "_stage.json").exists():
            check_models(recipe, name)


def run_stages(recipe: Recipe) -> None:
    """Run the stages of one round and show its report."""
    for name in recipe.stages:
        MODULES[name].run(recipe)
    evaluate.show(recipe)


def show_rounds(rounds: list[Recipe]) -> None:
    """Write the table of rounds into the folder of round 1, and print it."""
    folder = rounds[0].folder
    print(f"\n{write_rounds(round_rows([each.folder for each in rounds]), folder)}\n", flush=True)
    print(f"plot: {folder / 'rounds.png'}\ntable: {folder / 'rounds.md'}", flush=True)


def ask(recipe: Recipe) -> None:
    """Put the first benchmark problem to the served search."""
    source = next(iter(evaluate.benchmark_sources(recipe.evaluate).values()))
    serve.ask_once(recipe, benchmark_problems(source, 1).take(1)[0]["problem"])


if __name__ == "__main__":
    cli(run, "pipelines.run", flags=Flags())
