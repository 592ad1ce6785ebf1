"""Compare two typed answers: one rule for each pair of types. None means unknown."""

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


def is_readable(typed: TypedAnswer) -> bool:
    """Whether all of an answer can be parsed."""
    if isinstance(typed, Mathematics):
        defined = definitions.definition(typed.latex)
        text = defined.body if defined and not defined.name else typed.latex
        return inequalities.solution_set(text) is not None or compare_sympy.parse(text) is not None
    if isinstance(typed, ValueList):
        return all(map(is_readable, typed.members))
    if isinstance(typed, Conditional):
        return typed.value is None or is_readable(typed.value)
    if isinstance(typed, Named | Choice):
        return is_readable(typed.value if isinstance(typed, Named) else typed.content)
    if isinstance(typed, Quantity):
        return all(
            compare_sympy.parse(part.number) is not None or _CLOCK.fullmatch(part.number) for part in typed.parts
        )
    return not isinstance(typed, Unreadable)


_CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?")


def is_only_number(typed: TypedAnswer) -> bool:
    return isinstance(typed, Mathematics) and getattr(compare_sympy.parse(typed.latex), "is_number", False) is True


def answers_equal(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Whether two typed answers are equal."""
    if gold == answer:
        return True
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choices(gold, answer)
    if isinstance(gold, Conditional) or isinstance(answer, Conditional):
        return _conditionals(gold, answer)
    if isinstance(gold, Congruence) or isinstance(answer, Congruence):
        return _congruences(gold, answer)
    if isinstance(gold, BaseNumeral) or isinstance(answer, BaseNumeral):
        return _base_numerals(gold, answer)
    if isinstance(gold, ValueList) or isinstance(answer, ValueList):
        return _lists(gold, answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _words(gold, answer)
    if isinstance(gold, Quantity) or isinstance(answer, Quantity):
        equal = quantities_equal(_quantity(gold), _quantity(answer), numbers_equal)
    else:
        assert isinstance(gold, Mathematics)
        assert isinstance(answer, Mathematics)
        equal = mathematics_equal(gold.latex, answer.latex)
    return _with_letter_as_unit(gold, answer) if equal is False else equal


_UNIT_LETTER = re.compile(rf"([\d.]+|.*[\d}}])([{UNIT_LETTERS}])(\^\{{[23]\}})?")


def _with_letter_as_unit(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Compare `12m^2` as 12 square metres instead of a product: with a quantity by value, with a bare number as unknown."""
    sides = [gold, answer]
    for place, other in ((0, answer), (1, gold)):
        typed = sides[place]
        letter = _UNIT_LETTER.fullmatch(typed.latex) if isinstance(typed, Mathematics) else None
        if letter is None or not re.fullmatch(r"[\d.]+", letter[1]):
            continue
        parsed = units.parse_unit(letter[2] + (letter[3] or ""))
        quantity = Quantity((Part(letter[1], 1, parsed[1] if parsed else NOTHING),), frozenset())
        if isinstance(other, Quantity):
            return quantities_equal(other, quantity, numbers_equal)
        if isinstance(other, Mathematics) and re.fullmatch(r"[\d.]+", other.latex):
            return None if numbers_equal(letter[1], other.latex) else False
    return False


def _quantity(typed: TypedAnswer) -> Quantity:
    if isinstance(typed, Quantity):
        return typed
    assert isinstance(typed, Mathematics)
    return Quantity((Part(typed.latex, 1, NOTHING),), frozenset())


def numbers_equal(gold: str, answer: str) -> Truth:
    """Whether two numbers of quantities are equal. `9:30` is a clock time here, and not a ratio."""
    clocks = [_CLOCK.fullmatch(text) for text in (gold, answer)]
    if any(clocks):
        return (
            [int(part) for part in gold.split(":")] == [int(part) for part in answer.split(":")]
            if all(clocks)
            else False
        )
    return mathematics_equal(gold, answer)


def _named(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    r"""`x = 5\text{ cm}` equals `5\text{ cm}`. Two names must be equal."""
    first, second = ((r.value, r.name) if isinstance(r, Named) else _split_name(r) for r in (gold, answer))
    equal = answers_equal(first[0], second[0])
    if first[1] and second[1] and equal:
        return True if mathematics_equal(first[1], second[1]) else None
    simple = all(re.fullmatch(r"[A-Za-z\\{}_()\d,' ]*", name) for name in (first[1], second[1]))
    return equal if simple or not equal or any(TITLE.fullmatch(name) for name in (first[1], second[1])) else None


def _split_name(typed: TypedAnswer) -> tuple[TypedAnswer, str]:
    if isinstance(typed, Mathematics) and typed.latex.count("=") == 1:
        name, _, value = typed.latex.partition("=")
        return Mathematics(value.strip()), name.strip()
    return typed, ""


def _choices(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """`(A) 5` equals `A` and `5`."""
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return gold.letter == answer.letter and answers_equal(gold.content, answer.content)
    choice, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(choice, Choice)
    return other == Mathematics(choice.letter) or answers_equal(choice.content, other)


def _conditionals(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """`3 if n is odd` against `3`, `n is odd`, or another conditional value."""
    sides = [typed if isinstance(typed, Conditional) else Conditional(typed, None) for typed in (gold, answer)]  # type: ignore[arg-type]
    values = [typed.value for typed in sides]
    conditions = conditions_equal(*(typed.condition for typed in sides))
    if values[0] is None or values[1] is None:
        if values[0] is None and values[1] is None:
            return conditions
        statement, other = (sides[0].condition, answer) if values[0] is None else (sides[1].condition, gold)
        if isinstance(other, Mathematics) and is_only_number(other):
            return None if _states_number(statement, other.latex) else False
        return False if isinstance(other, Words) else None
    equal = answers_equal(values[0], values[1])
    if equal is False and conditions is not False and _may_rename_variable(sides):
        return None
    return three_valued.all_true((equal, conditions))


def _states_number(statement: Condition | None, number: str) -> bool:
    """Whether a sentence such as `There are 8` contains the number, after its last colon if it has one."""
    signs = statement.signs if statement and "not" not in statement.words else ()
    last = max((place for place, sign in enumerate(signs) if sign == ":"), default=-1)
    return number in signs[last + 1 :] or (not number.isdigit() and number in "".join(signs[last + 1 :]))


def _may_rename_variable(sides: list[Conditional]) -> bool:
    r"""Whether the two sides may use different variables: `2k\pi, k\in\mathbb{Z}` and `2n\pi, n\in\mathbb{Z}`."""
    return (
        all(typed.condition is not None and typed.condition.declares for typed in sides)
        and sides[0].condition != sides[1].condition
    )


def _congruences(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    r"""`n\equiv 3\pmod 5` equals `n\equiv 8\pmod 5`. Against the number 3 it is unknown, against other numbers different."""
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
    return _residues_equal(gold.right, answer.right, gold.modulus)


def _residues_equal(gold: str, answer: str, modulus: str) -> Truth:
    r"""Whether residues such as `1,4` and `\pm1` are equal for the modulus 5."""
    residues = [
        re.split(r",|\\text\{(?:or|and)\}", re.sub(r"\\pm(\d+)", r"\1,-\1", text.replace(" ", "")))
        for text in (gold, answer)
    ]
    if modulus.isdigit() and int(modulus) and all(re.fullmatch(r"-?\d+", part) for parts in residues for part in parts):
        first, second = ({int(part) % int(modulus) for part in parts} for parts in residues)
        return first == second
    return mathematics_equal(gold, answer)


def _base_numerals(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """`110_2` equals `110_2` and `110`. The same number in another base (`6`) is unknown, any other number different."""
    numerals = [typed if isinstance(typed, BaseNumeral) else _without_base(typed) for typed in (gold, answer)]
    if None in numerals:
        return False
    first, second = numerals
    assert first is not None
    assert second is not None
    same_digits = first.digits.lstrip("0") == second.digits.lstrip("0")
    if 0 in (first.base, second.base) or first.base == second.base:
        if same_digits:
            return True if first.base or second.base == 10 else None  # the gold answer 10 is not 10 in base two
        return None if 0 in (first.base, second.base) and _value(first) == _value(second) else False
    return None if _value(first) == _value(second) else False


def _without_base(typed: TypedAnswer) -> BaseNumeral | None:
    text = typed.latex if isinstance(typed, Mathematics) else ""
    return BaseNumeral(text, 0) if re.fullmatch(r"-?[0-9A-Z]+", text) else None


def _value(number: BaseNumeral) -> int | None:
    try:
        return int(number.digits, number.base or 10)
    except ValueError:
        return None


def _lists(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Members in order for tuples, in any order for sets and lists without brackets. A tuple and a list are unknown."""
    first, second = (_as_list(typed) for typed in (gold, answer))
    if first is None or second is None:
        return False
    ordered = [members.brackets[:1] in ("(", "[") for members in (first, second)]
    if first.brackets and second.brackets and first.brackets != second.brackets:
        return False
    compare_members = three_valued.same_in_order if all(ordered) else three_valued.same_members
    equal = compare_members(first.members, second.members, answers_equal)
    return None if equal and any(ordered) and not all(ordered) else equal


def _as_list(typed: TypedAnswer) -> ValueList | None:
    return typed if isinstance(typed, ValueList) else members_of(typed)


def _words(gold: TypedAnswer, answer: TypedAnswer) -> Truth:
    """Compare words. Letters such as `AB` are words here. `no solution` and the empty set are unknown."""
    if Mathematics(r"\emptyset") in (gold, answer):
        return (
            None
            if {"no", "none", "empty"}
            & {word for side in (gold, answer) if isinstance(side, Words) for word in side.text.casefold().split()}
            else False
        )
    texts = [typed.text if isinstance(typed, Words) else _as_word(typed) for typed in (gold, answer)]
    if texts[0] is None or texts[1] is None:
        return False
    return words_equal(texts[0], texts[1])


def _as_word(typed: TypedAnswer) -> str | None:
    text = typed.latex if isinstance(typed, Mathematics) else ""
    return text if re.fullmatch(r"[A-Za-z]+", text) else None
