r"""Multiple choice: options in the text of a problem, or an answer that is the letter of an option. Pure.

Capital letters in brackets, or with a full stop or a closing bracket, are options wherever they follow one another. Layouts that
are also used for parts, conditions, points and labels, such as (a), ①, `A:` or (1), are options only after a question, and only
if neither they nor the text after them asks anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from vgs_ray.cleaning.several_questions import asks, asks_how_many

_FONT = r"\\(?:text|textbf|textrm|textup|mathrm|mathbf|mathit|textit|bf|rm)\s{0,3}\{?\s{0,3}"
_DRESS = r"(?:\*\*|__|</?b>|</?strong>)?"


class Layout(NamedTuple):
    """How options are marked.

    Attributes:
        mark: pattern of a mark, with %s for its sign.
        signs: the signs of the options, which must follow one another.
        needs_question: whether the layout has other uses, so that the text around it must ask for a choice.
    """

    mark: str
    signs: tuple[str, ...]
    needs_question: bool


# A letter in brackets: (A), \textbf{(A)}, \text{(}A), （A）, but not P(A) or f(A).
_BRACKETED = (
    rf"(?:(?<![A-Za-z0-9])|(?<=quad)|(?<=textbf))[(（]\s{{0,3}}(?:{_FONT})?%s\s{{0,3}}(?:\}}|\\ )?\s{{0,3}}[)）]"
)
# A letter with a mark: "A. 12" or "A) 12" at the start of a line or after white space, \textbf{A.}, \mathrm{A)}, **A.**, | A. |
_MARKED = rf"(?:(?:^|[\s$*_|>])(?:{_FONT})?|{_FONT})\(?%s{_DRESS}[.)．、]"
_COLON = rf"(?:(?:^|[\s$*_|>])(?:{_FONT})?|{_FONT})\(?%s{_DRESS}[:：]"
_TIGHT = r"(?<![A-Za-z(（、，,])%s[、．.](?![\s、，,和及与]{0,3}[A-D][、．.])"  # 为A、4B、6C、7D、9
_SQUARE = r"(?:(?<![A-Za-z0-9\]}^_\\])|(?<=item))\\?[\[【{<]\s?%s[.)]?\s?\\?[\]】}>]"
_BRACKETED_TIGHT = r"(?<![A-Za-z])[(（]\s?%s\s?[)）]"  # (A)4(B)6
_LINE = r"^\s{0,4}(?:[-*+] )?(?:\$%s\$[.)\]]?|\*\*%s\*\*|%s\])(?=\s)"
_BARE = r"(?:^|\\item)\s{0,4}(?:[-*+] )?%s\s?[-–—/]?\s(?=\S)"
_NAMED = r"\b(?:option|choice|Option|Choice)\s%s\b[:.)]?"
_CELL = rf"[|]\s{{0,3}}{_DRESS}%s{_DRESS}\s{{0,3}}[|]\s{{0,20}}(?=[^\s|])"
_LOWER = rf"(?<![A-Za-z0-9\\)}}^])\(\s?{_DRESS}%s{_DRESS}\s?\)"
_LOWER_MARKED = rf"(?:^|[\s*_|>])%s{_DRESS}[.):]{_DRESS}\s"
_CIRCLED = r"%s"
_LATIN, _CYRILLIC = ("[AＡ]", "[BＢ]", "[CＣ]", "[DＤ]"), ("[АA]", "Б", "[ВB]", "Г")
_LAYOUTS = (
    Layout(_BRACKETED, _LATIN[:3], False),
    Layout(_MARKED, _LATIN, False),
    Layout(_BRACKETED, _CYRILLIC, False),
    Layout(_MARKED, _CYRILLIC, False),
    Layout(_SQUARE, _LATIN[:3], True),
    Layout(_BRACKETED_TIGHT, _LATIN, True),
    Layout(_MARKED, _LATIN[:3], True),
    Layout(_NAMED, _LATIN[:3], True),
    Layout(_LINE, _LATIN, True),
    Layout(_BARE, _LATIN, True),
    Layout(_TIGHT, _LATIN, True),
    Layout(_COLON, _LATIN, True),
    Layout(_COLON, _CYRILLIC, True),
    Layout(_CELL, _LATIN, True),
    Layout(_LOWER, tuple("abc"), True),
    Layout(_LOWER_MARKED, tuple("abc"), True),
    Layout(_LOWER, ("а", "б", "в", "г"), True),
    Layout(_LOWER_MARKED, ("а", "б", "в", "г"), True),
    Layout(_CIRCLED, tuple("①②③④"), True),
    Layout(_CIRCLED, tuple("ⒶⒷⒸ"), True),
    Layout(_MARKED, tuple("アイウエ"), True),
)
_PATTERNS = [
    ([re.compile(layout.mark.replace("%s", sign), re.MULTILINE) for sign in layout.signs], layout.needs_question)
    for layout in _LAYOUTS
]
_NUMBERED = [re.compile(rf"(?:(?<![\w)}}^])\(\s?{n}\s?\)|(?:^|\s){n}\)(?=\s))", re.MULTILINE) for n in "1234"]
_HEADER = re.compile(r"\|\s{0,3}A\s{0,3}\|\s{0,3}B\s{0,3}\|\s{0,3}C\s{0,3}\|")  # a table with a column for each option
_LETTER = rf"\$?\s?(?:{_FONT})?[(\[{{（]*\s?(?:{_FONT})?"
_LETTERED = re.compile(
    rf"(?i:(?:the )?(?:correct )?(?:option|choice|answer)s?(?: is)?:? ?|选择?|答案[:：]?)?{_LETTER}"
    r"(?:[A-EАБВГД]|[a-e](?=\))|[①-⑩](?:[、,， ]{0,2}[①-⑩])*)[)\]}）.\s$]*"
)
# An option with its letter: (C) 7, C. 7, \textbf{(C)}\ 7
_LABELLED = re.compile(rf"{_LETTER}(?:[A-E]\)[}}\s\\]|(?<=\()[A-E]\)[}}\s\\]|[A-E][.．、]\s?)[}}\s\\]*\S.*")
_LETTERS = re.compile(r"(?:[A-E](?:[,，、; &]{1,2}|(?: and )))+[A-E]|A?B?C?D?E?")
_WORD_BEFORE = re.compile(r"(?<![<\\A-Za-z])([^\W\d_]{2,20})\s{0,2}$")
_KINDS = re.compile(
    r"(?:mcq|(?:multiple|single|multi|mc)? ?choice|选择题|單選題|单选题|多选题)(?: questions?| problems?)?s?"
)
_KIND_COLUMNS = ("question_type", "problem_type", "answer_type")
_OPTION_CHARS = 400  # a longer text after the last mark is not an option; it may contain a question


def is_kind(row: Mapping[str, Any], kinds: re.Pattern[str]) -> str | None:
    """The evidence from a column such as `question_type` that a row is of one of these kinds, or None."""
    for column in _KIND_COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and kinds.fullmatch(re.sub(r"[\s_-]+", " ", value[:100]).strip().casefold()):
            return f"{column} is {value}"
    return None


def choice(row: Mapping[str, Any], problem: str, answer: str) -> str | None:
    """The evidence that a row is multiple choice, or None. Takes time linear in the text.

    Args:
        row: the columns `question_type`, `problem_type` and `answer_type` are read.
        problem: the text of the problem, without figure code.
        answer: the gold answer.
    """
    if kind := is_kind(row, _KINDS):
        return kind
    for patterns, needs_question in _PATTERNS:
        marks = _in_order(patterns, problem)
        if marks and _labels_options(problem, marks) and (not needs_question or _offers(problem, marks)):
            return problem[marks[0].start() : marks[0].start() + 100]
    header = _HEADER.search(problem)
    if header and problem[: header.start()].rstrip().endswith(("?", "？")) and _offers(problem, [header]):
        return problem[header.start() : header.start() + 100]
    marks = _in_order(_NUMBERED, problem)
    if marks and _offers(problem, marks) and _is_an_option(answer, problem, marks):
        return problem[marks[0].start() : marks[0].start() + 100]
    return (
        f"the answer is the letter of an option: {answer[:100]}"
        if _is_letter(" ".join(answer.split()), problem)
        else None
    )


def _is_letter(answer: str, problem: str) -> bool:
    """Whether an answer is the letter of an option, or several letters that the problem does not use as names."""
    bare = re.sub(rf"{_FONT}|[${{}}()\[\]]", "", answer).strip(" .")
    letters = re.findall("[A-E]", bare)
    if len(letters) > 1 and _LETTERS.fullmatch(bare):
        return not any(re.search(rf"(?<![A-Za-z]){letter}|{letter}(?![A-Za-z])", problem) for letter in letters)
    return bool(_LETTERED.fullmatch(answer) or _LABELLED.fullmatch(answer))


def _in_order(patterns: list[re.Pattern[str]], text: str) -> list[re.Match[str]] | None:
    """Matches of all patterns in order, or None. Each is the first after the one before; the first one is as late as possible."""
    marks: list[re.Match[str]] = []
    for pattern in patterns:
        mark = pattern.search(text, marks[-1].end() if marks else 0)
        if mark is None:
            return None
        marks.append(mark)
    first = list(patterns[0].finditer(text, 0, marks[1].start()))
    return [first[-1], *marks[1:]] if first else marks


def _labels_options(text: str, marks: list[re.Match[str]]) -> bool:
    """Whether marks label options. False for labels such as `box A: 3 balls, box B: 4 balls`, and with nothing between marks."""
    if all(text[a.end() : b.start()].strip(" ,;、，") in ("", "and", "or") for a, b in pairwise(marks)):
        return False
    words = [_WORD_BEFORE.search(text[max(0, mark.start() - 24) : mark.start()]) for mark in marks]
    names = {word[1].casefold() if word else None for word in words}
    return len(names) > 1 or None in names


def _offers(text: str, marks: list[re.Match[str]]) -> bool:
    """Whether the text before the marks asks a question, and neither the options nor the text after them asks anything."""
    lead, options = (
        text[: marks[0].start()],
        [text[a.end() : b.start()] for a, b in pairwise(marks)],
    )
    last = text[marks[-1].end() :]
    if (
        asks_how_many(lead)
        or not asks(lead, of_choice=True)
        or not all(option.strip(" \n\t,;、，|") for option in options)
    ):
        return False
    return (
        len(last) <= _OPTION_CHARS
        and not asks(last)
        and "__" not in last.replace("\\_", "_")
        and not any(asks(option) for option in options)
    )


def _is_an_option(answer: str, text: str, marks: list[re.Match[str]]) -> bool:
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    options = [text[mark.end() : end].strip(" \n\t,;.$") for mark, end in zip(marks, ends, strict=True)]
    return answer.strip(" $.()") in [*options, "1", "2", "3", "4"]
