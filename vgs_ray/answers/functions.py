r"""Definitions of functions, whose letter is bound: `f(x)=x^2` and `f(t)=t^2` are the same. Pure."""

from __future__ import annotations

import re

_DEFINITION = re.compile(r"([A-Za-z](?:_\{\w+\})?|\\[A-Za-z]+ ?)\(([a-z](?:,[a-z])*)\)(?==)")
_LETTER = r"(?<![A-Za-z\\]){}(?![A-Za-z])"
_ARROW = re.compile(r"([a-z])\\mapsto ?")


def renamed(text: str) -> str:
    r"""`x\mapsto x^2` as the definition that it is."""
    return _ARROW.sub(r"f(\1)=", text, count=1) if _ARROW.match(text) else text


def aligned(gold: str, answer: str) -> tuple[str, str]:
    """Both texts, with the bound letters of the answer's definition renamed to those of the gold one, where that captures no other letter."""
    gold, answer = renamed(gold), renamed(answer)
    first, second = _DEFINITION.match(gold), _DEFINITION.match(answer)
    if not first or not second or first[2] == second[2] or first[1] != second[1]:
        return gold, answer
    letters = list(zip(second[2].split(","), first[2].split(","), strict=False))
    if len(letters) != first[2].count(",") + 1 or len(letters) != second[2].count(",") + 1:
        return gold, answer
    free = {new for _, new in letters} - {old for old, _ in letters}
    if any(_occurs(new, answer) for new in free):
        return gold, answer
    table = dict(letters)
    return gold, re.sub(r"\\[A-Za-z]+|[a-z]", lambda match: table.get(match[0], match[0]), answer)


def _occurs(letter: str, text: str) -> bool:
    return letter in re.findall(r"\\[A-Za-z]+|[a-z]", text)
