"""The text of an answer cut at places outside of all brackets, and tables of words. Pure, linear time."""

from __future__ import annotations

import re

_OPENING = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"}
_CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"}
_BRACKET = re.compile(r"\\text\{[^{}]*\}|\\begin\{[^{}]*\}|\\end\{[^{}]*\}|\\[A-Za-z]+|\\.|[()\[\]{}]", re.DOTALL)


def depths(text: str) -> list[int]:
    """For each character how many brackets are open before it; half-open intervals close what they open."""
    found, depth, end = [], 0, 0
    for match in _BRACKET.finditer(text):
        found += [depth] * (match.start() - end)
        token = match[0]
        opens, closes = token in _OPENING or token.startswith("\\begin"), token in _CLOSING or token.startswith("\\end")
        inside = token.startswith("\\text{")
        depth -= closes
        found += [depth] + [depth + inside] * (len(token) - 1)
        depth += opens
        end = match.end()
    return found + [depth] * (len(text) - end)


def split_outside(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between separators that stand outside of all brackets, and those separators."""
    level = depths(text)
    parts, joins, end = [], [], 0
    for match in separator.finditer(text):
        if match.start() < end or level[match.start()] != 0 or not match[0]:
            continue
        parts.append(text[end : match.start()].strip())
        joins.append(match[0])
        end = match.end()
    parts.append(text[end:].strip())
    return [part for part in parts if part], joins


def enclosed(text: str) -> tuple[str, str, str] | None:
    r"""(opening bracket, content, closing bracket) where one pair of (), [], \{\}, or of an interval encloses the whole text."""
    opening = next((sign for sign in ("(", "[", r"\{") if text.startswith(sign)), None)
    closing = next((sign for sign in (r"\}", ")", "]") if text.endswith(sign)), None)
    if opening is None or closing is None or (opening == r"\{") != (closing == r"\}"):
        return None
    content = text[len(opening) : len(text) - len(closing)]
    level = depths(text)
    return None if min(level[len(opening) : len(text) - len(closing)], default=1) < 1 else (opening, content, closing)


def balanced(text: str) -> bool:
    """Whether no bracket closes before it opens, and none stays open."""
    level = depths(text + " ")
    return min(level) >= 0 and level[-1] == 0
