"""What an answer can be, once it is read."""

from __future__ import annotations

from dataclasses import dataclass

from vgs_ray.answers.conditions import Condition
from vgs_ray.answers.quantities import Quantity


@dataclass(frozen=True)
class Mathematics:
    """LaTeX without units, words and conditions."""

    latex: str


@dataclass(frozen=True)
class Words:
    """A name, a choice, or a few words."""

    text: str


@dataclass(frozen=True)
class BaseNumeral:
    """Digits in a base, such as 110_2."""

    digits: str
    base: int


@dataclass(frozen=True)
class Congruence:
    r"""`left \\equiv right \\pmod{modulus}`; left is empty where only a residue is given."""

    left: str
    right: str
    modulus: str


@dataclass(frozen=True)
class Conditional:
    """What holds under a condition; `value` is None where the condition is all."""

    value: TypedAnswer | None
    condition: Condition


@dataclass(frozen=True)
class Named:
    """`name = value`, where the value is more than mathematics."""

    name: str
    value: TypedAnswer


@dataclass(frozen=True)
class ValueList:
    """Members of which some are more than mathematics. `brackets` is empty for a list, else the two brackets."""

    members: tuple[TypedAnswer, ...]
    brackets: str


@dataclass(frozen=True)
class Choice:
    """An option with its content: `(A) 5`."""

    letter: str
    content: TypedAnswer


@dataclass(frozen=True)
class Unreadable:
    """What is none of these. Nonsense is plainly no answer: empty, broken, prose, or signs that mathematics does not have."""

    nonsense: bool


TypedAnswer = (
    Mathematics | Words | BaseNumeral | Congruence | Conditional | Named | ValueList | Choice | Quantity | Unreadable
)
