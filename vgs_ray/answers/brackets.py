"""Bracket depth of LaTeX text, and splits outside of all brackets. Pure, linear time."""

from __future__ import annotations

import re

_OPENING = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"}
_CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"}
_BRACKET = re.compile(r"\\text\{[^{}]*\}|\\begin\{[^{}]*\}|\\end\{[^{}]*\}|\\[A-Za-z]+|\\.|[()\[\]{}]", re.DOTALL)


def depths(text: str) -> list[int]:
    """For each character the number of brackets that are open before it. `[1,2)` is balanced, as half-open intervals are."""
    levels, depth, end = [], 0, 0
    for match in _BRACKET.finditer(text):
        levels += [depth] * (match.start() - end)
        token = match[0]
        opens, closes = token in _OPENING or token.startswith("\\begin"), token in _CLOSING or token.startswith("\\end")
        inside = token.startswith("\\text{")
        depth -= closes
        levels += [depth] + [depth + inside] * (len(token) - 1)
        depth += opens
        end = match.end()
    return levels + [depth] * (len(text) - end)


def split_outside(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split at separators outside of all brackets: `(1,2),3` at commas is `(1,2)` and `3`. Also returns those separators."""
    levels = depths(text)
    parts, joins, end = [], [], 0
    for match in separator.finditer(text):
        if match.start() < end or levels[match.start()] != 0 or not match[0]:
            continue
        parts.append(text[end : match.start()].strip())
        joins.append(match[0])
        end = match.end()
    parts.append(text[end:].strip())
    return [part for part in parts if part], joins


def enclosed(text: str) -> tuple[str, str, str] | None:
    r"""(opening bracket, content, closing bracket) if one pair of (), [], \{\}, (] or [) encloses the whole text, else None."""
    opening = next((sign for sign in ("(", "[", r"\{") if text.startswith(sign)), None)
    closing = next((sign for sign in (r"\}", ")", "]") if text.endswith(sign)), None)
    if opening is None or closing is None or (opening == r"\{") != (closing == r"\}"):
        return None
    content = text[len(opening) : len(text) - len(closing)]
    levels = depths(text)
    return None if min(levels[len(opening) : len(text) - len(closing)], default=1) < 1 else (opening, content, closing)


def balanced(text: str) -> bool:
    """Whether every bracket that opens is closed, and none closes before it opens."""
    levels = depths(text + " ")
    return min(levels) >= 0 and levels[-1] == 0
