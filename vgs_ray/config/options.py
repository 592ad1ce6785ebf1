"""Command-line options of a recipe: every field is one, such as `--train.batch-size 32` for `train.batch_size`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import tyro

from vgs_ray.config import Recipe
from vgs_ray.errors import UserError, option_name

LEAST_SIMILARITY, MARGIN, MOST_SUGGESTIONS = 0.6, 0.03, 4
"""Suggested are names within the margin of the most similar one, on a scale from 0 to 1."""


class Option(NamedTuple):
    """An option and the field that it sets."""

    path: tuple[str, ...]
    owner: type
    """The dataclass that has the field."""
    hint: Any
    default: Any

    @property
    def name(self) -> str:
        return option_name(".".join(self.path))

    def is_in(self, section: str) -> bool:
        """Whether it sets the field at this dotted path, or one below it."""
        return f"{'.'.join(self.path)}.".startswith(f"{section}.")


def options_of(config: Any, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Options of a dataclass instance and of the dataclasses in it. Items of a tuple are numbered from 0."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from options_of(value, here)
        elif not _holds_dataclass(hints[field.name]):
            yield Option(here, type(config), hints[field.name], value)
        else:  # a tuple of dataclasses, or None in place of one: its fields can't be set
            for index, item in enumerate(value or ()):
                yield from options_of(item, (*here, str(index)))


def _holds_dataclass(hint: Any) -> bool:
    return (isinstance(hint, type) and dataclasses.is_dataclass(hint)) or any(map(_holds_dataclass, get_args(hint)))


def parse_options(recipe: Recipe, flags: Any, arguments: list[str], program: str) -> tuple[Recipe, Any]:
    """Apply command-line arguments to a recipe and to the command's own flags.

    Args:
        recipe: gives the defaults.
        flags: dataclass instance with options that only this command has, or None.
        arguments: options and their values.
        program: the command line before the options, for error messages.

    Raises:
        UserError: an option does not exist, or its value has the wrong type.
    """
    parts = {"recipe": recipe} | ({"flags": flags} if flags else {})
    without_prefix = tyro.conf.arg(name="")
    command = dataclasses.make_dataclass(
        "Command", [(name, Annotated[type(part), without_prefix]) for name, part in parts.items()]
    )
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            given, unknown = tyro.cli(
                command, default=command(**parts), args=arguments, prog=program, return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff), add_help=False,
            )  # fmt: skip
    except SystemExit:
        raise UserError(f"{_complaint(printed.getvalue())}; {program} --help lists the options") from None
    if unknown:
        names = [option.name for part in parts.values() for option in options_of(part)]
        raise UserError(f"{_unknown_option(unknown[0], names)}; {program} --help-all lists every option")
    return given.recipe, getattr(given, "flags", None)


def _complaint(box: str) -> str:
    """The message in tyro's framed error, on one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─|+]|-{5,}", "", box)
    _title, *lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return " ".join(lines).partition("Argument helptext:")[0].strip().rstrip(".")


def _unknown_option(argument: str, names: list[str]) -> str:
    if not argument.startswith("--"):
        return f"unexpected argument {argument!r}; options have the form --section.field VALUE"
    given = argument.partition("=")[0].replace("_", "-")
    likeness = {name: _similarity(given, name) for name in names}
    best = max(likeness.values())
    nearest = [name for name in names if likeness[name] >= max(LEAST_SIMILARITY, best - MARGIN)]
    hint = f"; did you mean {' or '.join(nearest[:MOST_SUGGESTIONS])}?" if nearest else ""
    return f"option {given} does not exist{hint}"


def _similarity(given: str, name: str) -> float:
    """Similarity to an option's name, or to the end of it: `--steps` and `--value-engine.replicas` lack a section."""
    parts = name.removeprefix("--").split(".")
    end = "--" + ".".join(parts[-(given.count(".") + 1) :])
    return max(SequenceMatcher(None, given, candidate).ratio() for candidate in (name, end))
