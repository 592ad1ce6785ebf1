r"""Find the type of an answer from its whole text: mathematics, a quantity, words, a list. Pure; does not need sympy.

Mathematics stays LaTeX here. `vgs_ray.answers.compare_sympy` parses it when two answers are compared.
"""

from __future__ import annotations

import re
from functools import lru_cache

from vgs_ray.answers import numerals
from vgs_ray.answers.answer_types import (
    BaseNumeral,
    Choice,
    Conditional,
    Congruence,
    Mathematics,
    Named,
    TypedAnswer,
    Unreadable,
    ValueList,
    Words,
)
from vgs_ray.answers.brackets import enclosed, split_outside
from vgs_ray.answers.conditions import condition, split_condition
from vgs_ray.answers.inequalities import RELATION, is_builder
from vgs_ray.answers.nonsense import is_nonsense
from vgs_ray.answers.normalize import normalize_answer
from vgs_ray.answers.quantities import read_quantity

_BASES = {
    name: value
    for value, name in enumerate(
        """
    two three four five six seven eight nine ten eleven twelve
    """.split(),
        2,
    )
}
_BASES |= {"sixteen": 16, "hex": 16, "binary": 2, "octal": 8, "decimal": 10}
_BASE = r"(?P<base>\d{1,2}|\\text\{base\} ?\d{1,2}|(?:\\text\{)?(?:base ?)?(?:\d{1,2}|[a-z]+)\}?)"
_BASED = re.compile(
    rf"(?:\(|\\overline\{{|\\text\{{)?(?P<digits>-?[0-9A-Z]+)[)}}]?(?:_\{{\(?{_BASE}\)?\}}|(?:\\text\{{| |\()+\(?(?:in )?base ?\}}? ?(?P<after>\d{{1,2}}|[a-z]+)[)}}]?)"  # noqa: E501
)
_MODULUS = re.compile(
    r",?\(?(?:\\pmod ?\{(?P<braced>[^{}]*)\}|(?:\\bmod|\\mod|\\text\{mod(?:ulo)?\}|\(?(?<![A-Za-z\\])mod(?:ulo)?) ?(?P<bare>\w+|\{[^{}]*\}))\)*$"  # noqa: E501
)
_SEPARATOR = re.compile(
    r",?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor|\\land|[,;]|\\text\{[,;]\}|或者?|和|及|または|と|또는)\s*"
)
_OR = re.compile(r",?\s*(?:\\text\{or\}|\\lor|(?<![A-Za-z\\])or(?![A-Za-z]))\s*")
_CASES = re.compile(
    r"(?:[A-Za-z](?:\([A-Za-z]\)|_\{\w+\})?=)?\\?\{?\\begin\{(?:cases|array)\}(?:\{?[lcr|]+\}?)?(?P<rows>.*)\\end\{(?:cases|array)\}\.?"
)
TITLE = re.compile(r"[A-Z]\([^()]*[=<>|\\][^()]*\)|\\text\{[A-Za-z ]{2,40}\}(?:_\{\w+\}|\([A-Za-z]*\))?")
_EQUALS = re.compile(r"(?<![<>!:\\])(?::=|=)")
_CHOICE = re.compile(r"\(?([A-H])[).:]\s*(?=\S)")
_LETTER = re.compile(r"\(([A-Za-z])\)\.?|([A-Za-z])[.):]")
_PLAIN_WORDS = re.compile(
    r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’.\-]*(?:[ ,]+[A-Za-z\u00c0-\u024f'’.\-]+)*[.!?]?"
)
_CJK_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,12}")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{-?\d+\})? ?\(?)(\d+(?:\.\d+)?)\^\\circ")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_REALS = {
    "all real numbers",
    "all reals",
    "all real x",
    "real numbers",
    "all real values",
    "any real number",
    "all real values of x",
}


@lru_cache(maxsize=8192)
def classify(text: str) -> TypedAnswer:
    """The type of a normalized answer. The order of the rules matters."""
    text = _DEGREES.sub(r"\1(\\frac{\2\\pi}{180})", text).strip().rstrip(",;")
    for read in (_letter, _words, _base_numeral, _congruence):
        typed = read(text)
        if typed is not None:
            return typed
    if is_nonsense(text):
        return Unreadable(nonsense=True)
    if r"^\circ" in text and _FUNCTION.search(text):
        return Mathematics(text)
    quantity = read_quantity(text)
    if quantity is not None:
        return quantity
    if is_builder(text):
        return Mathematics(text)
    parts, _ = split_outside(text, _SEPARATOR)
    if len(parts) > 1 and all((split := split_condition(part)) and split[0] for part in parts):
        return ValueList(tuple(map(classify, parts)), "")
    alternatives, _ = split_outside(text, _OR)
    if 1 < len(alternatives) < len(parts) and "=" in text and not RELATION.search(text):
        return ValueList(tuple(map(classify, alternatives)), "")
    conditional = split_condition(text)
    if conditional is not None and conditional[0] != text:
        return Conditional(classify(conditional[0]) if conditional[0] else None, condition(conditional[1]))
    for read in (_cases, _choice, _value_list, _named):
        typed = read(text)
        if typed is not None:
            return typed
    return Mathematics(text) if not _has_prose(text) else Conditional(None, condition(text))


def classify_answer(answer: str) -> TypedAnswer:
    """The type of an answer that is not normalized yet."""
    return classify(normalize_answer(answer))


def _has_prose(text: str) -> bool:
    """Whether a text contains words or signs that do not belong to mathematics."""
    return bool(
        re.search(
            r"\\text\{(?!and\}|or\})[^{}]{2,}\}|\\n?mid|(?<![A-Za-z\\])(?:[a-z]{2,} ){1,}[a-z]{2,}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]",  # noqa: E501
            text,
        )
    )


def _letter(text: str) -> TypedAnswer | None:
    """`(A)`, `A.` or `A)`, the letter of an option."""
    match = _LETTER.fullmatch(text)
    return Mathematics(match[1] or match[2]) if match else None


def _words(text: str) -> TypedAnswer | None:
    """A text of words only, or a number word. A few letters such as `AB` or `xyz` are a product."""
    bare = re.sub(r"\s+", " ", _TEXT.sub(r" \1 ", text)).strip()
    number = numerals.number_word(bare)
    if number is not None:
        return Mathematics(str(number))
    if bare.casefold() in _REALS:
        return Mathematics(r"\mathbb{R}")
    if _CJK_WORDS.fullmatch(bare):
        return Words(bare)
    if not _PLAIN_WORDS.fullmatch(bare):
        return None
    if r"\text{" in text and _TEXT.sub("", text).strip():
        return None
    wordy = (
        bare.casefold() == "no"
        or (r"\text{" in text and len(bare) > 1)
        or (re.search(r"[A-Za-z]{3,}", bare) and re.search(r"[aeiouyAEIOUY]", bare))
    )
    several = len(bare.split()) > 1 and all(len(word) > 1 for word in bare.split())
    if not (wordy or several) or split_condition(text) is not None or re.search(r",| (?:and|or) ", bare):
        return None
    return Words(bare.rstrip(".!?"))


def _base_numeral(text: str) -> TypedAnswer | None:
    r"""`110_2`, `(110)_2`, `110_{\text{two}}`, `110\text{ base }2`."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    name = re.sub(r"\\text\{|\}|base|\s", "", match["base"] or match["after"])
    base = int(name) if name.isdigit() else _BASES.get(name, 0)
    if not 2 <= base <= 36:
        return None
    digits = match["digits"]
    try:
        int(digits, base)
    except ValueError:
        return None if re.search(r"[A-Z]", digits) else BaseNumeral(digits, base)
    return BaseNumeral(digits, base) if re.search(r"\d", digits) else None


def _congruence(text: str) -> TypedAnswer | None:
    r"""`n\equiv 3\pmod 5`, `3\pmod 5`."""
    match = _MODULUS.search(text)
    sides = re.split(r"\\equiv|≡", text[: match.start()]) if match else []
    if match is None or len(sides) > 2 or not sides[-1].strip():
        return None
    modulus = (match["braced"] or match["bare"] or "").strip("{}() ")
    if len(sides) == 1 and r"\pmod" not in match[0] and r"\text" not in match[0]:
        return None  # `2^n \bmod 7` is mathematics
    return Congruence(sides[0].strip() if len(sides) == 2 else "", sides[-1].strip(), modulus)


def _choice(text: str) -> TypedAnswer | None:
    """`(A) 5`, `A: 5`."""
    match = _CHOICE.match(text)
    if match is None or text[match.end()] in "^_!=+-*/),;":
        return None
    content = classify(text[match.end() :].strip())
    return None if isinstance(content, Unreadable) else Choice(match[1], content)


def _cases(text: str) -> TypedAnswer | None:
    r"""`\begin{cases} value & condition \\ ... \end{cases}` as a list of conditional values."""
    match = _CASES.fullmatch(text)
    if match is None:
        return None
    rows = [[cell.strip(" ,;.") for cell in row.split("&")] for row in match["rows"].split(r"\\") if row.strip()]
    if any(len(row) > 2 for row in rows):
        return Unreadable(nonsense=False)
    if all(len(row) == 1 for row in rows):
        return classify(",".join(row[0] for row in rows))
    return ValueList(
        tuple(Conditional(classify(row[0]), condition(row[1])) if len(row) == 2 else classify(row[0]) for row in rows),
        "",
    )


def _value_list(text: str) -> TypedAnswer | None:
    """A list, with or without brackets, of which a member is not mathematics alone: `5 cm, 7 cm`."""
    parts, _ = split_outside(text, _SEPARATOR)
    brackets = ""
    if len(parts) < 2:
        within = enclosed(text)
        if within is None:
            return None
        parts, _ = split_outside(within[1], _SEPARATOR)
        brackets = within[0] + within[2]
        if len(parts) < 2:
            return None
    members = tuple(classify(part) for part in parts)
    if all(isinstance(member, Mathematics) for member in members):
        linked = re.search(r"\\text|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[^\x00-\x7f]", text)
        spelled = [member.latex for member in members if isinstance(member, Mathematics)]
        return _with_commas(spelled, brackets) if (linked or spelled != parts) and not RELATION.search(text) else None
    return ValueList(members, brackets)


def members_of(answer: TypedAnswer) -> ValueList | None:
    """Mathematics such as `1,2` or `(1,2)` as a list. None for a single value and for other types."""
    if not isinstance(answer, Mathematics):
        return None
    within = enclosed(answer.latex)
    parts, _ = split_outside(within[1] if within else answer.latex, _SEPARATOR)
    if len(parts) < 2:
        return None
    return ValueList(tuple(map(Mathematics, parts)), within[0] + within[2] if within else "")


def _with_commas(parts: list[str], brackets: str) -> TypedAnswer:
    inner = ", ".join(parts)
    return Mathematics(f"{brackets[: len(brackets) // 2]}{inner}{brackets[len(brackets) // 2 :]}")


def _named(text: str) -> TypedAnswer | None:
    r"""`x = 5\text{ cm}`. A name with a value that is mathematics stays mathematics."""
    parts, _ = split_outside(text, _EQUALS)
    if len(parts) < 2:
        return None
    value = classify(parts[-1])
    if isinstance(value, Mathematics) and not TITLE.fullmatch(parts[0]):
        return None
    return Named("=".join(parts[:-1]), value)
