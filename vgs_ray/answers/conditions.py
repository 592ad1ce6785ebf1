r"""Conditions: `3\text{ if }n\text{ is odd}`, `n\text{ odd}`, `2k\pi, k\in\mathbb{Z}`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vgs_ray.answers.brackets import depths, split_outside

_OPENER = (
    r"(?:if and only if|only if|if|when|whenever|where|for which|for|with|provided|such that|given|unless|assuming|as long as|"
    r"iff|otherwise|except|excluding|subject to|其中|当)"
)
_OPENED = re.compile(
    rf"[,;]?\s*\(?(?:\\text\{{\s*[,;]?\s*{_OPENER}(?![A-Za-z])|(?<![A-Za-z\\]){_OPENER}(?![A-Za-z])|\\forall)",
    re.IGNORECASE,
)
_PREDICATE = re.compile(
    r"(?<![A-Za-z])(?:is|are|odd|even|prime|composite|positive|negative|integers?|natural|divisible|multiples?|divides|"
    r"not(?! exist)|perfect|rational|irrational|convergent|divergent|all|any|every|except)(?![A-Za-z])",
    re.IGNORECASE,
)
_MEMBER = re.compile(
    r"[A-Za-z](?:_\{\w+\})?(?:,[A-Za-z])*\\in ?(?:\\mathbb\{[A-Z]\}|[ZNRQ])(?:\^\{[^{}]*\}|_\{[^{}]*\}|\^[+*])?"
)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in|notin|equiv)(?![A-Za-z])")
_COMMA = re.compile(r"[,;]\s*")
_FILLERS = set(
    """
    if when whenever where for is are be a an the all any every each with that such provided given iff and as some
    which then integer integers number numbers only assuming it
    """.split()
)
_DECLARED = {"real", "constant", "constants", "arbitrary", "positive", "nonnegative", "natural", "whole", "complex"}
_OPPOSITES = [
    {"odd", "even"}, {"positive", "negative"}, {"prime", "composite"}, {"rational", "irrational"}, {"convergent", "divergent"},
    {"least", "most"}, {"less", "greater"}, {"less", "more"}, {"more", "fewer"}, {"minimum", "maximum"}, {"square", "cube"},
    {"increasing", "decreasing"}, {"above", "below"}, {"before", "after"}, {"smaller", "larger"}, {"inside", "outside"}, {"finite", "infinite"}, {"if", "unless"}, {"positive", "nonpositive"}, {"negative", "nonnegative"},  # noqa: E501
]  # fmt: skip
_RELATIONS = {"<", ">", "=", r"\le", r"\ge", r"\ne", r"\mid", r"\nmid", r"\in", r"\notin"}
_TOKEN = re.compile(r"\\[A-Za-z]+|[A-Za-z]{2,}|\d+(?:\.\d+)?|\S")


@dataclass(frozen=True)
class Condition:
    r"""A condition without filler words.

    Attributes:
        words: such as `odd`, `not`.
        signs: the mathematics, in the order of the text.
        declares: whether the condition only declares a variable: `k\in\mathbb{Z}`, `where k is an integer`.
    """

    words: tuple[str, ...]
    signs: tuple[str, ...]
    declares: bool


def split_condition(text: str) -> tuple[str, str] | None:
    """Split `3 if n is odd` into (`3`, `if n is odd`). The value is empty if all of the text is a condition: `n is odd`.

    Returns:
        None if the text contains no condition.
    """
    levels = depths(text)
    opened = next((match for match in _OPENED.finditer(text) if levels[match.start()] == 0), None)
    if opened is not None:
        return text[: opened.start()].strip(), text[opened.start() :].lstrip(",; ")
    last = re.search(r"\(([^()]*)\)$", text)
    if last and _MEMBER.fullmatch(last[1]) and last.start():
        return text[: last.start()].strip(), last[1]
    parts, _ = split_outside(text, _COMMA)
    if len(parts) > 1 and not _RELATION.search(parts[0]):
        tail = next((n for n, part in enumerate(parts) if _RELATION.search(part)), len(parts))
        if all(_RELATION.search(part) for part in parts[tail:]) and tail < len(parts):
            return ",".join(parts[:tail]), ",".join(parts[tail:])
    if len(parts) > 1 and _MEMBER.fullmatch(parts[-1]):
        return ",".join(parts[:-1]), parts[-1]
    words = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    return ("", text) if _PREDICATE.search(words) and len(re.findall(r"[A-Za-z]{2,}", words)) <= 8 else None


def condition(text: str) -> Condition:
    """Read the text of a condition."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    tokens = _TOKEN.findall(bare.strip("(), "))
    all_words = [token.casefold() for token in tokens if token[0].isalpha() and len(token) > 1]
    words = tuple(word for word in all_words if word not in _FILLERS)
    signs = tuple(
        token
        for token in tokens
        if not (token[0].isalpha() and len(token) > 1) and token not in (",", "(", ")", "$", r"\forall")
    )
    membership = bool(_MEMBER.fullmatch("".join(signs)) or _MEMBER.fullmatch(re.sub(r"\s", "", "".join(signs))))
    declares = set(words) <= _DECLARED and (membership or all(sign.isalpha() for sign in signs))
    return Condition(words, signs, declares)


def conditions_equal(first: Condition | None, second: Condition | None) -> bool | None:
    """Whether two conditions are equal. A condition that only declares a variable may be omitted.

    Returns:
        None if one condition is omitted, or if the conditions use different words.
    """
    if first == second:
        return True
    if first is None or second is None:
        only = first or second
        return True if only is not None and only.declares else None
    if first.declares and second.declares and first.words == second.words:
        return _declared_sets(first) == _declared_sets(second)
    ours, theirs = set(first.words) - set(second.words), set(second.words) - set(first.words)
    if first.signs == second.signs and any(len(pair & ours) == 1 and len(pair & theirs) == 1 for pair in _OPPOSITES):
        return False
    if first.signs == second.signs and ours | theirs in ({"not"}, {"unless"}):
        return False
    if ours or theirs or len(first.signs) != len(second.signs):
        return None
    changed = [set(pair) for pair in zip(first.signs, second.signs, strict=True) if pair[0] != pair[1]]
    numbers = [all(token.isdigit() for token in pair) for pair in changed]
    relations = [pair <= _RELATIONS for pair in changed]
    return False if all(numbers) or all(relations) else None


def _declared_sets(condition: Condition) -> list[str]:
    """The signs without the variable: `\\in`, `\\mathbb`, `Z` for `k\\in\\mathbb{Z}`."""
    return [sign for sign in condition.signs if not (len(sign) == 1 and sign.islower()) and sign not in "()"]
