"""The command line that every stage shares: a recipe, its overrides, the run's lock, and errors as one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.errors import line_of
from pipelines.recipes import RECIPES
from pipelines.tables.stage import only_writer
from vgs_ray.config import Recipe
from vgs_ray.config.checks import URL, check_layout, check_recipe
from vgs_ray.config.options import overridden
from vgs_ray.errors import UserError


def parse(command: str, arguments: list[str]) -> Recipe:
    """A recipe's name and overrides, such as `sandbox --train.steps 50`, to the full configuration.

    Raises:
        UserError: no or an unknown recipe, an option that does not exist, or a value that can't be.
    """
    known = ", ".join(RECIPES)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m {command} RECIPE [--section.field VALUE ...]\nrecipes: {known}")
        print(f"python -m {command} RECIPE --help lists every field with its meaning, range and default")
        raise SystemExit(0 if arguments else 2)
    name, overrides = arguments[0], arguments[1:]
    if name not in RECIPES:
        raise UserError(f"recipe {name!r} does not exist; it must be one of: {known}")
    base = RECIPES[name]()
    recipe = overridden(base, overrides, f"python -m {command} {name}")
    if recipe.root:  # workers have other working directories
        recipe = replace(recipe, root=recipe.root if URL.match(recipe.root) else absolute(recipe.root))
    check_recipe(recipe)
    check_layout(base, recipe)
    return recipe


def absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def cli(run: Callable[[Recipe], object], command: str, writes: bool = True) -> None:
    """The main function of a stage: parse, run, and turn what a person can mend into one line and a non-zero exit.

    A stage that writes tables holds the run's lock.
    """
    try:
        recipe = parse(command, sys.argv[1:])
        with only_writer(recipe) if writes else contextlib.nullcontext():
            run(recipe)
    except KeyboardInterrupt:
        _stop("interrupted: what is durable stays; run the same command to go on", 130)
    except Exception as error:
        if not (line := line_of(error)):
            raise
        _stop(f"error: {line}", 2)


def _stop(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(code)
