"""The command line of every stage: a recipe and its options, the run's lock, and one-line errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipelines.errors import line_of
from pipelines.recipes import RECIPES
from pipelines.tables.stage import only_writer
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.config.help import help_text, summary
from vgs_ray.config.identity import with_models
from vgs_ray.config.options import parse_options
from vgs_ray.config.placement import check_ignored_options
from vgs_ray.config.recipe import SHARED
from vgs_ray.data.storage import is_url, storage_path
from vgs_ray.errors import UserError
from vgs_ray.models.folder import is_path

HELP, HELP_ALL = ("-h", "--help"), "--help-all"
RUN_FIELDS = ("root", "run_name")
FIELDS = {
    **{stage: (*shared, stage) for stage, shared in SHARED.items()},
    **{stage: ("cpu_nodes", *SHARED[stage], stage) for stage in ("verify", "label", "pairs", "export")},
    "clean": ("cpu_nodes", *SHARED["clean"], "clean", "evaluate.benchmark_folder"),
    "import_vm": ("clean.validation", "import_vm"),
    "plan": ("plan",),
    "status": (),
    "compare": ("seed", "evaluate.bootstrap"),
    "run": ("seed", "instruction", "policy", "judge"),
}
"""The fields and sections that `--help` of each command lists after `RUN_FIELDS`."""


def parse(command: str, arguments: list[str], flags: Any = None) -> Recipe:
    """Turn a recipe's name and options, such as `sandbox --train.steps 50`, into the full configuration.

    Args:
        command: the module's name.
        arguments: of the command.
        flags: dataclass instance with options that only this command has.

    Raises:
        UserError: the recipe is missing or unknown, an option does not exist, or a value is not allowed.
    """
    return _parse(command, arguments, flags)[0]


def _parse(command: str, arguments: list[str], flags: Any) -> tuple[Recipe, Any]:
    if not arguments or arguments[0] in (*HELP, HELP_ALL):
        _print(_usage(command))
        raise SystemExit(0 if arguments else 2)
    name, *options = arguments
    if name not in RECIPES:
        raise UserError(f"recipe {name!r} does not exist; it must be one of: {', '.join(RECIPES)}")
    base = RECIPES[name]()
    if asked := {HELP_ALL, *HELP}.intersection(options):
        _print(_help(command, base, flags, whole=HELP_ALL in asked))
        raise SystemExit(0)
    base = with_models(base, _anywhere)
    recipe, flags = parse_options(base, flags, options, f"python -m {command} {name}")
    recipe = with_models(recipe, _anywhere)
    check_recipe(recipe)
    if isinstance(root := storage_path(recipe.root), Path):  # workers have other working directories
        recipe = replace(recipe, root=absolute(str(root)))
    check_ignored_options(base, recipe)
    return recipe, flags


def _usage(command: str) -> str:
    recipes = [(f"  {name}", summary(recipe)) for name, recipe in RECIPES.items()]
    return (
        f"usage: python -m {command} RECIPE [--section.field VALUE ...]\n\n"
        f"recipes:\n{_columns(recipes)}\n\n"
        f"python -m {command} RECIPE --help lists the options."
    )


def _help(command: str, recipe: Recipe, flags: Any, whole: bool) -> str:
    """The help text with every field of the recipe, or with those that the command reads."""
    program, name = f"python -m {command} {recipe.name}", command.rpartition(".")[2]
    parts = [f"usage: {program} [--section.field VALUE ...]"]
    if flags:
        parts.append(help_text(flags))
    if whole:
        return "\n\n".join([*parts, help_text(recipe)])
    parts.append(help_text(recipe, (*RUN_FIELDS, *FIELDS[name])))
    if name == "run":
        stages = [(f"  {stage}", summary(type(getattr(recipe, stage)))) for stage in (*recipe.stages, "serve")]
        parts += [f"Stages, in this order:\n{_columns(stages)}"]
        parts += [f"python -m pipelines.STAGE {recipe.name} --help lists the fields of one stage."]
    return "\n\n".join([*parts, "--help-all describes the fields of all sections; every command accepts all of them."])


def _print(text: str) -> None:
    """Print, also if the reader, such as `head`, closes the pipe early."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's exit does not fail too


def _columns(rows: list[tuple[str, str]]) -> str:
    return tabulate(rows, tablefmt="plain", preserve_whitespace=True)


def _anywhere(model: str) -> str:
    """A model's name for workers, which have other working directories. A folder needs no ./ in front, as in `model_folder`."""
    local = not is_url(model) and (is_path(model) or Path(model).is_dir())
    return absolute(model) if local and model else model


def absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def cli(run: Callable[..., object], command: str, writes: bool = True, flags: Any = None) -> None:
    """The main function of a command: parse the arguments, then run.

    An error that the user can fix becomes one line on standard error and a non-zero exit code.

    Args:
        run: takes the recipe, and the flags if there are any.
        command: the module's name, such as `pipelines.train`.
        writes: whether it writes tables. If so, it holds the run's lock.
        flags: dataclass instance with options that only this command has.
    """
    try:
        recipe, flags = _parse(command, sys.argv[1:], flags)
        with only_writer(recipe) if writes else contextlib.nullcontext():
            run(recipe, flags) if flags else run(recipe)
    except KeyboardInterrupt:
        _stop("interrupted: finished work is kept; run the same command to continue", 130)
    except Exception as error:
        if not (line := line_of(error)):
            raise
        _stop(f"error: {line}", 2)


def _stop(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(code)
