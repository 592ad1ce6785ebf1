r"""Definitions of functions and sequences. Their variable may have any name: `f(x)=x^2` equals `f(t)=t^2`. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"(?P<name>[A-Za-z]|\\[A-Za-z]+ ?)"
_DEFINITION = re.compile(
    rf"{_NAME}(?:\((?P<called>[a-z](?:,[a-z])*)\)|_\{{(?P<indexed>[a-z])\}}|(?P<maps>\\mapsto ?))?(?(maps)|=)(?P<body>[^=]+)"
)
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


class Definition(NamedTuple):
    r"""`f(x)=x^2` has the name `f`, the variables (`x`,) and the body `x^2`. The name is empty for `x \mapsto x^2`."""

    name: str
    variables: tuple[str, ...]
    body: str


def definition(text: str) -> Definition | None:
    """Read a text as a definition; None if it is none. `y = x^2` is a definition without variables."""
    match = _DEFINITION.fullmatch(text)
    if match is None:
        return None
    if match["maps"]:
        return Definition("", (match["name"],), match["body"])
    return Definition(
        match["name"].strip(), tuple((match["called"] or match["indexed"] or "").replace(",", "")), match["body"]
    )


def letters_of(text: str) -> set[str]:
    r"""The variables in a piece of LaTeX: `x` for `\sin x+e`. Commands and the constant e do not count."""
    return {token for token in _LETTER.findall(text) if len(token) == 1} - {"e"}


def rename(body: str, old: tuple[str, ...], new: tuple[str, ...]) -> str | None:
    """A body with its variables renamed. None if a new name is already in use in the body, or the numbers of names differ."""
    if len(old) != len(new) or (set(new) - set(old)) & letters_of(body):
        return None
    table = dict(zip(old, new, strict=True))
    return _LETTER.sub(lambda match: table.get(match[0], match[0]), body)
