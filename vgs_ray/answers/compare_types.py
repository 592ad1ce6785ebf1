"""Whether two readings of answers say the same, kind by kind; None where nobody knows."""

from __future__ import annotations

import re

from vgs_ray.answers import compare_sympy, definitions, inequalities, three_valued, units
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
from vgs_ray.answers.classify import TITLE, members_of
from vgs_ray.answers.compare_math import mathematics_equal
from vgs_ray.answers.compare_quantities import quantities_equal
from vgs_ray.answers.compare_words import words_equal
from vgs_ray.answers.conditions import Condition, conditions_equal
from vgs_ray.answers.quantities import Part, Quantity
from vgs_ray.answers.three_valued import Truth
from vgs_ray.answers.units import NOTHING, UNIT_LETTERS


def is_readable(reading: TypedAnswer) -> bool:
    """Whether all of an answer can be read; mathematics is parsed for that."""
    if isinstance(reading, Mathematics):
        defined = definitions.definition(reading.latex)
        text = defined.body if defined and not defined.name else reading.latex
        return inequalities.solution_set(text) is not None or compare_sympy.parse(text) is not None
    if isinstance(reading, ValueList):
        return all(map(is_readable, reading.members))
    if isinstance(reading, Conditional):
        return reading.value is None or is_readable(reading.value)
    if isinstance(reading, Named | Choice):
        return is_readable(reading.value if isinstance(reading, Named) else reading.content)
    if isinstance(reading, Quantity):
        return all(
            compare_sympy.parse(part.number) is not None or _CLOCK.fullmatch(part.number) for part in reading.parts
        )
    return not isinstance(reading, Unreadable)


_CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?")


def is_only_number(reading: TypedAnswer) -> bool:
    return isinstance(reading, Mathematics) and getattr(compare_sympy.parse(reading.latex), "is_number", False) is True


def answers_equal(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Whether two readings say the same."""
    if gold == answer:
        return True
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choices(gold, answer)
    if isinstance(gold, Conditional) or isinstance(answer, Conditional):
        return _given(gold, answer)
    if isinstance(gold, Congruence) or isinstance(answer, Congruence):
        return _congruences(gold, answer)
    if isinstance(gold, BaseNumeral) or isinstance(answer, BaseNumeral):
        return _based(gold, answer)
    if isinstance(gold, ValueList) or isinstance(answer, ValueList):
        return _lists(gold, answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _worded(gold, answer)
    if isinstance(gold, Quantity) or isinstance(answer, Quantity):
        found = quantities_equal(_quantity(gold), _quantity(answer), numbers_equal)
    else:
        assert isinstance(gold, Mathematics)
        assert isinstance(answer, Mathematics)
        found = mathematics_equal(gold.latex, answer.latex)
    return _with_letter_as_unit(gold, answer) if found is False else found


_UNIT_LETTER = re.compile(rf"([\d.]+|.*[\d}}])([{UNIT_LETTERS}])(\^\{{[23]\}})?")


def _with_letter_as_unit(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """`12m^2` may be a product, or 12 square metres: that where the other side has the unit, and unknown where it has none."""
    readings = [gold, answer]
    for place, other in ((0, answer), (1, gold)):
        reading = readings[place]
        letter = _UNIT_LETTER.fullmatch(reading.latex) if isinstance(reading, Mathematics) else None
        if letter is None or not re.fullmatch(r"[\d.]+", letter[1]):
            continue
        parsed = units.parse_unit(letter[2] + (letter[3] or ""))
        quantity = Quantity((Part(letter[1], 1, parsed[1] if parsed else NOTHING),), frozenset())
        if isinstance(other, Quantity):
            return quantities_equal(other, quantity, numbers_equal)
        if isinstance(other, Mathematics) and re.fullmatch(r"[\d.]+", other.latex):
            return None if numbers_equal(letter[1], other.latex) else False
    return False


def _quantity(reading: TypedAnswer) -> Quantity:
    if isinstance(reading, Quantity):
        return reading
    assert isinstance(reading, Mathematics)
    return Quantity((Part(reading.latex, 1, NOTHING),), frozenset())


def numbers_equal(gold: str, answer: str) -> Truth:
    """Whether two pieces of mathematics in quantities are equal; clock times are no ratios."""
    clocks = [_CLOCK.fullmatch(text) for text in (gold, answer)]
    if any(clocks):
        return (
            [int(part) for part in gold.split(":")] == [int(part) for part in answer.split(":")]
            if all(clocks)
            else False
        )
    return mathematics_equal(gold, answer)


def _named(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """`x = 5\\text{ cm}` against 5; two names must be the same."""
    first, second = ((r.value, r.name) if isinstance(r, Named) else _split_name(r) for r in (gold, answer))
    found = answers_equal(first[0], second[0])
    if first[1] and second[1] and found:
        return True if mathematics_equal(first[1], second[1]) else None
    simple = all(re.fullmatch(r"[A-Za-z\\{}_()\d,' ]*", name) for name in (first[1], second[1]))
    return found if simple or not found or any(TITLE.fullmatch(name) for name in (first[1], second[1])) else None


def _split_name(reading: TypedAnswer) -> tuple[TypedAnswer, str]:
    if isinstance(reading, Mathematics) and reading.latex.count("=") == 1:
        name, _, value = reading.latex.partition("=")
        return Mathematics(value.strip()), name.strip()
    return reading, ""


def _choices(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return gold.letter == answer.letter and answers_equal(gold.content, answer.content)
    choice, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(choice, Choice)
    return other == Mathematics(choice.letter) or answers_equal(choice.content, other)


def _given(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    given = [reading if isinstance(reading, Conditional) else Conditional(reading, None) for reading in (gold, answer)]  # type: ignore[arg-type]
    values = [reading.value for reading in given]
    conditions = conditions_equal(*(reading.condition for reading in given))
    if values[0] is None or values[1] is None:
        if values[0] is None and values[1] is None:
            return conditions
        statement, other = (given[0].condition, answer) if values[0] is None else (given[1].condition, gold)
        if isinstance(other, Mathematics) and is_only_number(other):
            return None if _says(statement, other.latex) else False
        return False if isinstance(other, Words) else None
    found = answers_equal(values[0], values[1])
    if found is False and conditions is not False and _renamed_letter(given):
        return None
    return three_valued.all_true((found, conditions))


def _says(statement: Condition | None, number: str) -> bool:
    """Whether a sentence such as `There are 8` has the number in it, behind its last colon."""
    signs = statement.signs if statement and "not" not in statement.words else ()
    last = max((place for place, sign in enumerate(signs) if sign == ":"), default=-1)
    return number in signs[last + 1 :] or (not number.isdigit() and number in "".join(signs[last + 1 :]))


def _renamed_letter(given: list[Conditional]) -> bool:
    """`2k\\pi, k\\in\\mathbb{Z}` and `2n\\pi, n\\in\\mathbb{Z}` name their letter differently."""
    return (
        all(reading.condition is not None and reading.condition.declares for reading in given)
        and given[0].condition != given[1].condition
    )


def _congruences(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    if not (isinstance(gold, Congruence) and isinstance(answer, Congruence)):
        congruence, other = (gold, answer) if isinstance(gold, Congruence) else (answer, gold)
        assert isinstance(congruence, Congruence)
        if not isinstance(other, Mathematics):
            return False
        if re.fullmatch("[A-Za-z]", other.latex):
            return False
        return (
            None
            if not is_only_number(other) or mathematics_equal(congruence.right, other.latex) is not False
            else False
        )
    moduli = mathematics_equal(gold.modulus, answer.modulus)
    if moduli is not True:
        return moduli
    if gold.left and answer.left and mathematics_equal(gold.left, answer.left) is not True:
        return False if gold.right == answer.right else None
    return _residues_same(gold.right, answer.right, gold.modulus)


def _residues_same(gold: str, answer: str, modulus: str) -> Truth:
    residues = [
        re.split(r",|\\text\{(?:or|and)\}", re.sub(r"\\pm(\d+)", r"\1,-\1", text.replace(" ", "")))
        for text in (gold, answer)
    ]
    if modulus.isdigit() and int(modulus) and all(re.fullmatch(r"-?\d+", part) for parts in residues for part in parts):
        first, second = ({int(part) % int(modulus) for part in parts} for parts in residues)
        return first == second
    return mathematics_equal(gold, answer)


def _based(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Digits in the same base, or with the base left out; the same number in another base is not what was asked for."""
    readings = [reading if isinstance(reading, BaseNumeral) else _digits(reading) for reading in (gold, answer)]
    if None in readings:
        return False
    first, second = readings
    assert first is not None
    assert second is not None
    same_digits = first.digits.lstrip("0") == second.digits.lstrip("0")
    if 0 in (first.base, second.base) or first.base == second.base:
        if same_digits:
            return True if first.base or second.base == 10 else None  # 10 is not 10 in base two
        return None if 0 in (first.base, second.base) and _value(first) == _value(second) else False
    return None if _value(first) == _value(second) else False


def _digits(reading: TypedAnswer) -> BaseNumeral | None:
    text = reading.latex if isinstance(reading, Mathematics) else ""
    return BaseNumeral(text, 0) if re.fullmatch(r"-?[0-9A-Z]+", text) else None


def _value(number: BaseNumeral) -> int | None:
    try:
        return int(number.digits, number.base or 10)
    except ValueError:
        return None


def _lists(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    first, second = (_as_list(reading) for reading in (gold, answer))
    if first is None or second is None:
        return False
    ordered = [reading.brackets[:1] in ("(", "[") for reading in (first, second)]
    if first.brackets and second.brackets and first.brackets != second.brackets:
        return False
    compare_members = three_valued.same_in_order if all(ordered) else three_valued.same_members
    found = compare_members(first.members, second.members, answers_equal)
    return None if found and any(ordered) and not all(ordered) else found


def _as_list(reading: TypedAnswer) -> ValueList | None:
    return reading if isinstance(reading, ValueList) else members_of(reading)


def _worded(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Words are compared as words; an abbreviation may be right, and `AB` may be a word or a product."""
    if Mathematics(r"\emptyset") in (gold, answer):
        return (
            None
            if {"no", "none", "empty"}
            & {word for side in (gold, answer) if isinstance(side, Words) for word in side.text.casefold().split()}
            else False
        )
    texts = [reading.text if isinstance(reading, Words) else _as_word(reading) for reading in (gold, answer)]
    if texts[0] is None or texts[1] is None:
        return False
    return words_equal(texts[0], texts[1])


def _as_word(reading: TypedAnswer) -> str | None:
    text = reading.latex if isinstance(reading, Mathematics) else ""
    return text if re.fullmatch(r"[A-Za-z]+", text) else None
