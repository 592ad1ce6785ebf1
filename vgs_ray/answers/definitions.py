r"""Definitions of functions and sequences, whose letter is bound: `f(x)=x^2` and `f(t)=t^2` are the same. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"(?P<name>[A-Za-z]|\\[A-Za-z]+ ?)"
_DEFINITION = re.compile(
    rf"{_NAME}(?:\((?P<called>[a-z](?:,[a-z])*)\)|_\{{(?P<indexed>[a-z])\}}|(?P<maps>\\mapsto ?))?(?(maps)|=)(?P<body>[^=]+)"
)
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


class Definition(NamedTuple):
    """A name (empty for `x \\mapsto ...`), its bound letters, and what it stands for."""

    name: str
    letters: tuple[str, ...]
    body: str


def definition(text: str) -> Definition | None:
    """The definition that a text is; `y = ...` is one without bound letters."""
    match = _DEFINITION.fullmatch(text)
    if match is None:
        return None
    if match["maps"]:
        return Definition("", (match["name"],), match["body"])
    return Definition(
        match["name"].strip(), tuple((match["called"] or match["indexed"] or "").replace(",", "")), match["body"]
    )


def letters_of(text: str) -> set[str]:
    """Letters of a piece of mathematics, without those of commands, and without the constant e."""
    return {token for token in _LETTER.findall(text) if len(token) == 1} - {"e"}


def rename(body: str, old: tuple[str, ...], new: tuple[str, ...]) -> str | None:
    """A body with its bound letters renamed; None where that is no renaming, because a new one stands in it already."""
    if len(old) != len(new) or (set(new) - set(old)) & letters_of(body):
        return None
    table = dict(zip(old, new, strict=True))
    return _LETTER.sub(lambda match: table.get(match[0], match[0]), body)
