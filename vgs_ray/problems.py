"""Cleaning rules: which problems can be used for training, and why the others cannot.

In: one row in the layout of OpenR1-Math (problem, solution, answer, question_type, ...). Out: None to keep it, or a
`Dropped` with a reason code and the evidence. Pure functions, for what one row shows by itself; the last three reasons
need other rows: see `vgs_ray.copies` and `vgs_ray.contamination`.

The text rules are regular expressions tuned on MATH-500, NuminaMath, OlympiadBench and PutnamBench. They lean to
dropping: a lost problem costs little, one whose box cannot be checked puts wrong labels on all its roll-outs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from vgs_ray.grade import boxes, equivalent, parse_ok

Reason = Literal[
    "malformed",
    "no_single_box",
    "box_disagrees",
    "not_checkable",
    "multiple_choice",
    "several_questions",
    "needs_figure",
    "duplicate",
    "near_duplicate",
    "contaminated",
]
REASONS: tuple[Reason, ...] = Reason.__args__  # type: ignore[attr-defined]  # in the order of the checks


class Dropped(NamedTuple):
    """Why a row is not used. `evidence` is the part of the row that decided."""

    reason: Reason
    evidence: str


# A figure that the text holds itself: Asymptote or TikZ.
FIGURE_CODE = re.compile(r"[<\[]asy[>\]].*?[<\[]/asy[>\]]|\\begin\{(asy|tikzpicture)\}.*?\\end\{\1\}", re.S)


def check(
    row: Mapping[str, Any], equal: Callable[[str, str], bool] = equivalent, readable: Callable[[str], bool] = parse_ok
) -> Dropped | None:
    """The first rule that a row breaks by itself, or None for a usable problem.

    Args:
        row: needs `problem` and `answer`; `solution` and `question_type` are read where present.
        equal: compares the answer with the solution's boxes; `grade.equivalent` has no time limit, a `Judge` has.
        readable: whether an answer can be parsed; `grade.parse_ok` has no time limit either.
    """
    problem, answer = row.get("problem"), row.get("answer")
    if not isinstance(problem, str) or not problem.strip():
        return Dropped("malformed", f"problem is {_shown(problem)}, and must be a text that is not empty")
    if not isinstance(answer, str) or not answer.strip():
        return Dropped("malformed", f"answer is {_shown(answer)}, and must be a text that is not empty")
    text = FIGURE_CODE.sub(" [figure] ", problem)
    return (
        _check_box(answer, row.get("solution"), equal)
        or _check_checkable(text, answer, readable)
        or _check_choice(text, answer, row.get("question_type"))
        or _check_single(text)
        or _check_figure(text)
    )


def boxed_answer(solution: object) -> str | None:
    """The answer of a source without an answer column: the last complete box of its solution; empty without any box.

    Returns None when there is no solution, so that the row counts as malformed.
    """
    if not isinstance(solution, str) or not solution.strip():
        return None
    return (boxes(solution) or [""])[-1]


def _shown(value: object) -> str:
    return repr(value)[:60]


def _check_box(answer: str, solution: object, equal: Callable[[str, str], bool]) -> Dropped | None:
    """A solution has one distinct answer in its boxes, and the answer column agrees. No solution, no complaint."""
    if not isinstance(solution, str) or not solution.strip():
        return None
    distinct: list[str] = []
    for box in boxes(solution):
        if not any(equal(other, box) for other in distinct):
            distinct.append(box)
        if len(distinct) == 4:  # enough evidence
            break
    if len(distinct) != 1:
        return Dropped(
            "no_single_box", f"different boxes: {', '.join(distinct)[:200]}" if distinct else "no complete box"
        )
    if equal(answer, distinct[0]):
        return None
    return Dropped("box_disagrees", f"answer {answer[:100]}, box {distinct[0][:100]}")


_PROOF = re.compile(
    r"\b(?:dis)?prove\b|(?<!to )\bshow(?:ing)?,? (?:\w+ )?that\b|\bdemonstrate that\b|\bproof that\b|证明|求证", re.I
)
SENTENCE_WORDS = 5  # an answer with so many words is a sentence, and math-verify would compare a piece of it
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_CHINESE_WORDS = re.compile(r"[\u4e00-\u9fff]{3}")  # one or two are a unit, or "and" or "or" between two values
_NO_ANSWER = re.compile(
    r"\W*(?:see (?:the )?(?:solution|proof|above)|proof|proved|none|n/?a|null|q\.?e\.?d|证明.*)\W*", re.I
)


def _check_checkable(problem: str, answer: str, readable: Callable[[str], bool]) -> Dropped | None:
    if found := _PROOF.search(problem):
        return Dropped("not_checkable", _around(problem, found))
    sentence = _PROOF.search(answer) or _CHINESE_WORDS.search(answer) or len(_WORD.findall(answer)) >= SENTENCE_WORDS
    if sentence or _NO_ANSWER.fullmatch(answer):
        return Dropped("not_checkable", f"the answer is no value: {answer[:100]}")
    if not re.search(r"[\w∞∅]", answer) or not readable(answer):
        return Dropped("not_checkable", f"math-verify cannot read the answer {answer[:100]}")
    return None


_FONT = r"\\(?:text|textbf|textrm|textup|mathrm|mathbf|mathit|textit|bf|rm)\s*\{?\s*"
# A letter in brackets: (A), \textbf{(A)}, \text{(}A), but not P(A) or f(A).
_BRACKETED = rf"(?:(?<![A-Za-z0-9])|(?<=quad)|(?<=textbf))\(\s*(?:{_FONT})?%s\s*(?:\}}|\\ )?\s*\)"
# A letter with a mark: "A. 12" or "A) 12" at the start of a line or after white space, \textbf{A.}, \mathrm{A)}.
_MARKED = rf"(?:(?:^|[\s$]){{1}}(?:{_FONT})?|{_FONT})\(?%s(?:[.)]|:(?!\d))"
_LETTERED = re.compile(rf"\s*\$?\s*(?:{_FONT})?[({{]*\s*(?:{_FONT})?[A-E]\s*[)}}.\s$]*")


def _in_order(pattern: str, letters: str, text: str) -> int | None:
    """Where the first letter's pattern starts when all letters' patterns follow one another, else None."""
    start, position = None, 0
    for letter in letters:
        found = re.compile(pattern % letter, re.MULTILINE).search(text, position)
        if found is None:
            return None
        start, position = found.start() if start is None else start, found.end()
    return start


def _check_choice(problem: str, answer: str, question_type: object) -> Dropped | None:
    if isinstance(question_type, str) and question_type.upper() == "MCQ":
        return Dropped("multiple_choice", "question_type is MCQ")
    for pattern, letters in ((_BRACKETED, "ABC"), (_MARKED, "ABCD")):
        start = _in_order(pattern, letters, problem)
        if start is not None:
            return Dropped("multiple_choice", problem[start : start + 100])
    if _LETTERED.fullmatch(answer):
        return Dropped("multiple_choice", f"the answer is the letter {answer}")
    return None


_ASKS = re.compile(
    r"\?|\b(?:find|determine|calculate|compute|evaluate|solve|express|write|list|sketch|draw|"
    r"simplify|state|discuss|give|describe|explain|prove|show|construct|estimate)\b",
    re.I,
)
_ASKS_NEXT = re.compile(
    r"\b(?:find|determine|calculate|compute|evaluate|solve|simplify|answer)"
    r"(?: the)?(?: following| values?)*(?: of)?(?: expressions?| equations?| questions?)?[:：]$",
    re.I,
)
_MARKUP = re.compile(r"(?:[\s$*]|<br\s*/?>)+$")
_CONDITION = re.compile(
    r"\b(?:such that|satisf\w+|condition\w*|propert\w+|rules?|following (?:are|is|hold)|where|if|for which)\b", re.I
)
_BEFORE = r"(?<![A-Za-z0-9\\)}^])"  # f(a) and (x+1)(2) are no enumeration
_PARTS = [
    (re.compile(first, re.I), re.compile(second, re.I))
    for first, second in (
        (rf"{_BEFORE}\(\s*a\s*\)", rf"{_BEFORE}\(\s*b\s*\)"),
        (r"(?:^|\n|[.:;?]\s{1,4})\W{0,4}a[.)]\s", r"(?:\n|[.:;?,]\s{1,4})\W{0,4}b[.)]\s"),
        (rf"{_BEFORE}\(\s*i\s*\)", rf"{_BEFORE}\(\s*ii\s*\)"),
        (rf"{_BEFORE}[（(]1[）)]", rf"{_BEFORE}[（(]2[）)]"),
        (r"(?:^|\n|[.:;?]\s{1,4})\W{0,4}1[.)]\s", r"(?:\n|[.:;?]\s{1,4})\W{0,4}2[.)]\s"),
        (r"\b(?:question|problem|part|task)\s*(?:1|A|I|one)\b", r"\b(?:question|problem|part|task)\s*(?:2|B|II|two)\b"),
    )
]


def _check_single(problem: str) -> Dropped | None:
    """Enumerated parts are several questions when each of them asks; conditions and steps may be enumerated too."""
    for first, second in _PARTS:
        one = first.search(problem)
        two = one and second.search(problem, one.end())
        if one and two and _each_asks(problem[: one.start()], problem[one.end() : two.start()], problem[two.end() :]):
            return Dropped("several_questions", _around(problem, one))
    return None


def _each_asks(lead: str, one: str, two: str) -> bool:
    if _ASKS.search(one) and _ASKS.search(two):
        return True
    asked = _MARKUP.sub("", re.split(r"[.?!]\s", lead)[-1])  # "Find: (a) the area, (b) the perimeter"
    if _ASKS_NEXT.search(asked):
        return True
    return asked.endswith(":") and bool(_ASKS.search(asked)) and not _CONDITION.search(asked)


_DRAWN = r"(?:figure|diagram|picture|drawing|illustration|sketch)"
_PLACE = r"(?:shown|below|above|here|(?:at|to|on) (?:the )?(?:right|left))"
_SHOWN = r"(?:shown|pictured|depicted|illustrated)"
_FIGURE = re.compile(
    r"!\[|\bhttps?://|\bwww\.|\\includegraphics|<img\b|如图|下图"
    rf"|\b(?:in|from|see|on|per|to) the (?:\w+ )?{_DRAWN}\b"
    rf"|\b(?:{_DRAWN}|graph|chart|grid|image|map)s? (?:is |are |as )?(?:\w+ )?{_PLACE}\b"
    rf"|\bthe {_DRAWN} (?:shows|depicts|illustrates|represents)\b"
    rf"|\b(?:as|is|are) {_SHOWN}\b(?! that)|\b{_SHOWN} (?:below|above|here|(?:in|at|on) the)\b"
    rf"|\b(?:fig(?:ure)?\.?|diagram) ?\d"
    rf"|\b(?:below|above|following|accompanying|adjacent|attached) (?:{_DRAWN}|graph|image)\b",
    re.I,
)


def _check_figure(problem: str) -> Dropped | None:
    """A figure that the text does not hold, or a link."""
    found = None if "[figure]" in problem else _FIGURE.search(problem)
    return Dropped("needs_figure", _around(problem, found)) if found else None


def _around(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 30) : found.end() + 60].split())
