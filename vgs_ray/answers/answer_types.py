"""The types of answers. `vgs_ray.answers.classify` finds the type of a text."""

from __future__ import annotations

from dataclasses import dataclass

from vgs_ray.answers.conditions import Condition
from vgs_ray.answers.quantities import Quantity


@dataclass(frozen=True)
class Mathematics:
    r"""LaTeX without units, words and conditions: `x=\frac{1}{2}`, `(1,2)`, `x>3`."""

    latex: str


@dataclass(frozen=True)
class Words:
    """A name or a few words: `Monday`, `no solution`."""

    text: str


@dataclass(frozen=True)
class BaseNumeral:
    """Digits in a base: `110_2`. Base 0 means that the answer does not give the base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Congruence:
    r"""`left \equiv right \pmod{modulus}`. `left` is empty if the answer gives only a residue: `3 \pmod 5`."""

    left: str
    right: str
    modulus: str


@dataclass(frozen=True)
class Conditional:
    """A value under a condition: `3 if n is odd`. `value` is None if the answer is only a condition: `n is odd`."""

    value: TypedAnswer | None
    condition: Condition


@dataclass(frozen=True)
class Named:
    """A name with a value that is not mathematics alone: `x = 5 cm`."""

    name: str
    value: TypedAnswer


@dataclass(frozen=True)
class ValueList:
    """A list with a member that is not mathematics alone: `5 cm, 7 cm`. `brackets` holds both brackets, or is empty."""

    members: tuple[TypedAnswer, ...]
    brackets: str


@dataclass(frozen=True)
class Choice:
    """An option with its content: `(A) 5`."""

    letter: str
    content: TypedAnswer


@dataclass(frozen=True)
class Unreadable:
    """A text of no other type. `nonsense` is set for texts that are certainly no answer: empty, broken, or prose."""

    nonsense: bool


TypedAnswer = (
    Mathematics | Words | BaseNumeral | Congruence | Conditional | Named | ValueList | Choice | Quantity | Unreadable
)
