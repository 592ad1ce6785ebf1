"""Help texts of the command line: options in groups, each with its meaning, range and default."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from docstring_parser import parse, parse_from_object

from vgs_ray.config.options import Option, options_of
from vgs_ray.errors import option_name

NARROWEST, WIDEST, WITHOUT_TERMINAL = 80, 120, 100
"""Columns."""
LONGEST_DEFAULT = 50
_SIGNS = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}


def help_text(config: Any, sections: Iterable[str] | None = None) -> str:
    """The options of a dataclass instance, in a group for each dataclass in it.

    A dataclass that occurs in several places, such as an engine, is described once, under all its prefixes.

    Args:
        config: a recipe, or the flags of one command.
        sections: dotted paths of the fields and sections to list, each field with the first sentence of its meaning; options
            of dataclasses inside list items are left out. None lists everything.
    """
    whole, groups = sections is None, dict[type, list[Option]]()
    for option in options_of(config):
        if sections is None or (not _in_list_item(option) and any(map(option.is_in, sections))):
            groups.setdefault(option.owner, []).append(option)
    separator = "\n\n" if whole else "\n"
    return separator.join("\n".join(_group(owner, options, whole)) for owner, options in groups.items())


def _in_list_item(option: Option) -> bool:
    """Whether it belongs to a dataclass inside an item of a list."""
    return any(part.isdigit() for part in option.path[:-2])


def _group(owner: type, options: list[Option], whole: bool) -> Iterator[str]:
    """The lines of one dataclass: a title, then each field once."""
    width = min(max(shutil.get_terminal_size((WITHOUT_TERMINAL, 0)).columns, NARROWEST), WIDEST) - 1
    prefixes = list(dict.fromkeys(_unnumbered(option.path[:-1]) for option in options))
    nested = any(len(prefix) > 1 for prefix in prefixes)
    names = [f"{option_name('.'.join(prefix))}.FIELD" for prefix in prefixes]
    places = f": {', '.join(names)}" if nested else ""
    yield textwrap.fill(f"{summary(owner).partition('. ')[0].rstrip('.')}{places}", width, break_on_hyphens=False)
    by_field: dict[str, list[Option]] = {}
    for option in options:
        name = f".{option.path[-1].replace('_', '-')}" if nested else option.name
        by_field.setdefault(name, []).append(option)
    column = max(map(len, by_field)) + 4
    for name, same in by_field.items():
        lines = textwrap.wrap(_description(same, whole), width - column, break_on_hyphens=False)
        yield textwrap.indent("\n".join(lines), " " * column).replace(" " * column, f"  {name}".ljust(column), 1)


def _unnumbered(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("N" if part.isdigit() else part for part in path)


def _description(options: list[Option], whole: bool) -> str:
    """Meaning, range and default of one field, which may occur in several places."""
    first = options[0]
    meaning = meanings(first.owner)[first.path[-1]]
    defaults = list(dict.fromkeys(_default_text(option.default) for option in options))
    default = f"default {' or '.join(defaults)}" if len(defaults) <= 2 else "default differs"
    notes = "; ".join(filter(None, (range_of(first.hint), default)))
    return f"{(meaning if whole else meaning.partition('. ')[0]).rstrip('.')} [{notes}]"


def _default_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return textwrap.shorten(str(value), LONGEST_DEFAULT, placeholder=" ...") or "empty"


@cache
def meanings(owner: type) -> dict[str, str]:
    """The documentation of each field of a dataclass."""
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in parse_from_object(owner).params}


def summary(owner: object) -> str:
    """The first paragraph of the documentation of a dataclass or a function."""
    return " ".join((parse(owner.__doc__ or "").short_description or "").split())


def range_of(hint: Any) -> str:
    """The values that a field may have, such as `> 0 and <= 1`; empty if every value of its type is valid."""
    if constraints := getattr(hint, "__metadata__", ()):
        return ", ".join(filter(None, (" and ".join(filter(None, map(_rule, constraints))), range_of(hint.__origin__))))
    if get_origin(hint) is Literal:
        return " | ".join(get_args(hint))
    items = {range_of(item) for item in get_args(hint)} - {""}
    return ", ".join(sorted(f"each {item}" for item in items))


def _rule(constraint: Any) -> str:
    if isinstance(constraint, MinLen):
        return "not empty"
    sign = _SIGNS.get(type(constraint))
    return f"{sign} {getattr(constraint, type(constraint).__name__.lower())}" if sign else ""  # Ge(ge=1)
