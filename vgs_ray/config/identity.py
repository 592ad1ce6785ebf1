"""Which fields of a configuration identify the rows of a stage, and which only say how they are computed.

A field is part of the identity unless its type says otherwise: `Annotated[PositiveInt, OPERATION]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, NamedTuple, get_type_hints


class Role(Enum):
    """What a field is for the rows of a stage."""

    IDENTITY = "identity"
    """It changes rows."""
    OPERATION = "operation"
    """It doesn't change rows, so it may change when a stage is restarted."""
    MODEL = "model"
    """It names a model. The model's content is part of the identity, its name is not."""


OPERATION, MODEL = Role.OPERATION, Role.MODEL


class Leaf(NamedTuple):
    """A field that holds a plain value."""

    name: str
    """Such as `roll_in.generators.0.model`."""
    value: Any
    """As JSON has it."""
    role: Role


def leaves(name: str, value: Any, role: Role = Role.IDENTITY) -> Iterator[Leaf]:
    """All plain values of a field. The role of a section is that of all its fields, unless it is `IDENTITY`."""
    if is_dataclass(value):
        hints = get_type_hints(type(value), include_extras=True)
        for field in fields(value):
            own = role_of(hints[field.name]) if role is Role.IDENTITY else role
            yield from leaves(f"{name}.{field.name}", getattr(value, field.name), own)
    elif isinstance(value, tuple) and any(map(is_dataclass, value)):
        for index, item in enumerate(value):
            yield from leaves(f"{name}.{index}", item, role)
    else:
        yield Leaf(name, list(value) if isinstance(value, tuple) else value, role)


def with_models(value: Any, change: Callable[[str], str]) -> Any:
    """A section, or a whole recipe, in which each model has the name that `change` returns."""
    if isinstance(value, tuple):
        return tuple(with_models(item, change) for item in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    hints, changed = get_type_hints(type(value), include_extras=True), {}
    for field in fields(value):
        now = getattr(value, field.name)
        is_model = isinstance(now, str) and role_of(hints[field.name]) is MODEL
        changed[field.name] = change(now) if is_model else with_models(now, change)
    return replace(value, **changed)


def role_of(hint: Any) -> Role:
    """The role in the metadata of a field's type."""
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Role)), Role.IDENTITY)
