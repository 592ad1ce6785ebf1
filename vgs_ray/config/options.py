"""The command line of a recipe: every field an option, whose help says what it means and which values it may have."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import re
from functools import cache
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from vgs_ray.config import Recipe
from vgs_ray.config.ranges import range_text
from vgs_ray.errors import UserError

OPTIONS = ConstructorRegistry()


def overridden(recipe: Recipe, options: list[str], prog: str) -> Recipe:
    """The recipe with the fields that the options name.

    Raises:
        UserError: an option that does not exist, or a value of the wrong type.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(Recipe, default=recipe, args=options, prog=prog, registry=OPTIONS)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_line(printed.getvalue())) from None


@OPTIONS.struct_rule
def _section(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A dataclass as options, as tyro itself has it, with the range of each field behind its meaning."""
    if not dataclasses.is_dataclass(info.type):
        return None
    hints, texts = get_type_hints(info.type, include_extras=True), field_texts(info.type)
    fields = []
    for field in dataclasses.fields(info.type):
        rule = range_of(hints[field.name])
        text = texts.get(field.name, "") + (f" [{rule}]" if rule else "")
        fields.append(StructFieldSpec(field.name, hints[field.name], _default(field, info.default), text))
    return StructConstructorSpec(info.type, tuple(fields))


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if dataclasses.is_dataclass(instance):
        return getattr(instance, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING_NONPROP if field.default is dataclasses.MISSING else field.default


@cache
def field_texts(section: type) -> dict[str, str]:
    """The text below each field of a configuration class."""
    body = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def range_of(hint: Any) -> str:
    """The range of a field's type in words; empty where every value of the type will do."""
    if constraints := getattr(hint, "__metadata__", ()):
        return ", ".join(filter(None, (range_text(constraints), range_of(hint.__origin__))))
    items = {range_of(item) for item in get_args(hint)} - {""}
    return ", ".join(sorted(f"each {item}" for item in items))


def _one_line(box: str) -> str:
    """tyro's framed message as one line: the complaint and the remedy, without the frame, its title and the argument's help."""
    plain = re.sub(
        r"\x1b\[[0-9;]*m|[│╭╮╰╯─]|-{5,}", "", box
    )  # the frame is of dashes where the terminal has no other lines
    _title, *lines = [line.strip() for line in plain.splitlines() if line.strip()]
    text, _, remedy = " ".join(lines).partition("For full helptext, ")
    meant = re.search(r"Perhaps you meant: (--\S+)", text)
    complaint = re.split(r"Argument helptext:|Available subcommands:|Perhaps you meant:", text)[0].strip()
    guess = f"; perhaps you meant {meant[1]}" if meant else ""
    return f"{complaint}{guess}; every field is listed by: {remedy.removeprefix('run ').removeprefix('see ')}"
