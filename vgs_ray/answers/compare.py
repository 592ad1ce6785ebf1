"""Whether an answer equals the gold one: cheap ways first, then reading by reading.

Pure functions without a time limit of their own: sympy can take for ever, so `vgs_ray.judge` runs them in processes that can be killed.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

from vgs_ray.answers import algebra, functions, numerals, regions, sampling, units
from vgs_ray.answers.algebra import Truth
from vgs_ray.answers.conditions import Condition, conditions_same
from vgs_ray.answers.costly import too_costly
from vgs_ray.answers.measures import quantities_equal
from vgs_ray.answers.quantities import Part, Quantity
from vgs_ray.answers.reading import (
    TITLE,
    Based,
    Choice,
    Congruence,
    Given,
    Many,
    Mathematics,
    Named,
    Reading,
    Unread,
    Words,
    members_of,
    reading_of,
)
from vgs_ray.answers.spelling import plain
from vgs_ray.answers.text import enclosed, split_outside
from vgs_ray.answers.units import NOTHING
from vgs_ray.answers.wording import words_same
from vgs_ray.answers.words import UNIT_LETTERS

MAX_ANSWER_CHARS = 1000  # a longer answer is never handed to a parser
RELATIVE_TOLERANCE = sampling.TOLERANCE
_LEAST_DIGITS = 5  # of a decimal that stands for an exact number by being its rounding


class Comparison(NamedTuple):
    """Whether an answer equals the gold one; None means that nobody knows. `reason` says how it was found out."""

    equivalent: bool | None
    reason: str


def quick_equivalent(gold: str, answer: str) -> bool | None:
    """What needs no algebra: the same text in another spelling, two integers, or ratios of them. None when undecided."""
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return True if gold == answer else None
    gold, answer = plain(gold), plain(answer)
    if not gold or not answer:
        return False
    if gold == answer:
        return True
    first, second = numerals.ratio(gold), numerals.ratio(answer)
    return None if first is None or second is None else first == second


def quick_compare(gold: str, answer: str) -> Comparison | None:
    """The part of `compare` that takes no time to speak of; None where the answers must be read."""
    quick = quick_equivalent(gold, answer)
    if quick is None and max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return Comparison(None, "too_long")
    if quick is None and (too_costly(answer) or too_costly(gold)):
        return Comparison(None, "too_costly")
    return None if quick is None else Comparison(quick, "exact" if quick else "different")


def compare(gold: str, answer: str) -> Comparison:
    """Compare an answer with the gold one.

    No time limit, and sympy may take for ever: use `vgs_ray.judge.Judge` for what a model wrote.

    Returns:
        equivalent True with reason "exact" or "math_verify"; False with "different" or "unparsable_answer";
        None with "unparsable_gold", "unread_answer", "undecided" (both are read, and whether they are equal hangs on what neither
        says), "too_long" (over `MAX_ANSWER_CHARS`), "too_costly" or "error" (sympy raised).
    """
    quick = quick_compare(gold, answer)
    if quick is not None:
        return quick
    algebra.load()
    try:
        return compare_read(gold, answer)
    except Exception:  # sympy raises nearly anything; a broken comparison is not a wrong answer
        return Comparison(None, "error")


def compare_read(gold: str, answer: str) -> Comparison:
    """`compare` without its cheap ways."""
    first, second = reading_of(gold), reading_of(answer)
    if not is_readable(first):
        return Comparison(None, "unparsable_gold")
    if isinstance(second, Unread) and second.nonsense:
        return Comparison(False, "unparsable_answer")
    if not is_readable(second):
        return (
            Comparison(False, "unparsable_answer")
            if _only_number(first) and not re.search(r"\d", answer)
            else Comparison(None, "unread_answer")
        )
    found = same(first, second)
    if found is False and _may_be_list(gold, answer):
        found = None
    if found is None:
        return Comparison(None, "undecided")
    return Comparison(found, "math_verify" if found else "different")


def _may_be_list(gold: str, answer: str) -> bool:
    """Whether `100,200,300` on one side is the list that stands on the other."""
    return any(
        re.fullmatch(r"\d{1,3}(,\d{3})+", one.strip()) and same(reading_of(one.replace(",", ", ")), reading_of(other))
        for one, other in ((gold, answer), (answer, gold))
    )


def is_readable(reading: Reading) -> bool:
    """Whether all of an answer can be read; mathematics is parsed for that."""
    if isinstance(reading, Mathematics):
        defined = functions.definition(reading.latex)
        text = defined.body if defined and not defined.name else reading.latex
        return regions.region(text) is not None or algebra.parse(text) is not None
    if isinstance(reading, Many):
        return all(map(is_readable, reading.members))
    if isinstance(reading, Given):
        return reading.value is None or is_readable(reading.value)
    if isinstance(reading, Named | Choice):
        return is_readable(reading.value if isinstance(reading, Named) else reading.content)
    if isinstance(reading, Quantity):
        return all(algebra.parse(part.number) is not None or _CLOCK.fullmatch(part.number) for part in reading.parts)
    return not isinstance(reading, Unread)


_COLON = re.compile(":")
_CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?")


def _only_number(reading: Reading) -> bool:
    return isinstance(reading, Mathematics) and getattr(algebra.parse(reading.latex), "is_number", False) is True


def same(gold: Reading, answer: Reading) -> Truth:
    """Whether two readings say the same."""
    if gold == answer:
        return True
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choices(gold, answer)
    if isinstance(gold, Given) or isinstance(answer, Given):
        return _given(gold, answer)
    if isinstance(gold, Congruence) or isinstance(answer, Congruence):
        return _congruences(gold, answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _based(gold, answer)
    if isinstance(gold, Many) or isinstance(answer, Many):
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


def _with_letter_as_unit(gold: Reading, answer: Reading) -> Truth:
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


def _quantity(reading: Reading) -> Quantity:
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


def mathematics_equal(gold: str, answer: str) -> Truth:
    """Whether two texts without units, words and conditions are the same mathematics."""
    if gold == answer:
        return True
    rounded = _rounding(gold, answer)
    if rounded is not None:
        return rounded
    cut = _cut_off(gold, answer)
    if cut is not NotImplemented:
        return cut  # type: ignore[no-any-return]
    ratios = [split_outside(text, _COLON)[0] for text in (gold, answer)]
    if max(map(len, ratios)) > 2 and ":" in gold + answer:
        return _ratios_equal(*ratios)
    regional = _regions(gold, answer)
    if regional is not NotImplemented:
        return regional  # type: ignore[no-any-return]
    defined = _definitions(gold, answer)
    if defined is not NotImplemented:
        return defined  # type: ignore[no-any-return]
    first, second = algebra.parse(gold), algebra.parse(answer)
    if first is None or second is None:
        return None
    if _brackets_clash(gold, answer):
        return False
    found = algebra.equal(first, second)
    return found if found is not False else _other_notation(gold, answer)


def _definitions(gold: str, answer: str) -> Any:
    """`f(x)=x^2` against `f(t)=t^2`, `y=x^2` and `x^2`; NotImplemented where neither defines a function."""
    first, second = functions.definition(gold), functions.definition(answer)
    if not ((first and first.letters) or (second and second.letters)):
        return NotImplemented
    if first and second:
        body = (
            functions.rename(second.body, second.letters, first.letters)
            if first.letters and second.letters
            else second.body
        )
        if body is None:
            return None
        found = mathematics_equal(first.body, body)
        known = first.name == second.name or "y" in (first.name, second.name) or not (first.name and second.name)
        return found if known or not found else None
    defined, other = (first, answer) if first else (second, gold)
    assert defined is not None
    if "=" in other or regions.RELATION.search(other):
        return NotImplemented
    found = mathematics_equal(defined.body, other)
    if found is False and len(defined.letters) == 1 and len(free := functions.letters_of(other)) == 1:
        body = functions.rename(other, tuple(free), defined.letters)
        return None if body and mathematics_equal(defined.body, body) else False
    return found


_CUT = re.compile(r"-?\d+\.(\d+)\\ldots ?")


def _cut_off(gold: str, answer: str) -> Any:
    r"""`0.333\ldots` may go on in any way: None where its digits are those of the other side, else False."""
    found = [_CUT.fullmatch(text) for text in (gold, answer)]
    if not any(found):
        return NotImplemented
    values = [
        algebra.parse(match[0].replace(r"\ldots", "").strip() if match else text)
        for match, text in zip(found, (gold, answer), strict=True)
    ]
    if not all(getattr(value, "is_number", False) for value in values):
        return None
    places = min(len(match[1]) for match in found if match)
    return None if abs((values[0] - values[1]).evalf(30)) <= 10**-places else False


def _ratios_equal(gold: list[str], answer: list[str]) -> Truth:
    """`1:2:3` against `2:4:6`: each number in relation to the first."""
    if len(gold) != len(answer):
        return False
    scaled = [[rf"\frac{{{part}}}{{{side[0]}}}" for part in side[1:]] for side in (gold, answer)]
    return algebra.in_order(scaled[0], scaled[1], mathematics_equal)


def _rounding(gold: str, answer: str) -> bool | None:
    """True where one is a decimal of five significant digits or more and the other rounds to it; two rationals are decided here."""
    decimals = [numerals.decimal(text) for text in (gold, answer)]
    exact = [found[0] if found else numerals.ratio(text) for found, text in zip(decimals, (gold, answer), strict=True)]
    if not any(decimals):
        return None
    if exact[0] is not None and exact[1] is not None:
        return _rationals_equal(exact[0], exact[1], decimals)
    for found, other in ((decimals[0], answer), (decimals[1], gold)):
        value = algebra.parse(other) if found and found[1] >= _LEAST_DIGITS else None
        if found and getattr(value, "is_number", False) and getattr(value, "is_real", False):
            if abs(value.evalf(30) - _float(found[0])) <= _float(found[2]):
                return True
    return None


def _rationals_equal(gold: Fraction, answer: Fraction, decimals: list[tuple[Fraction, int, Fraction] | None]) -> bool:
    """Two rationals of which one is a decimal. Of two decimals the one with fewer places must be the other one rounded to them;
    a fraction without a finite decimal may differ by `RELATIVE_TOLERANCE`, or round to the decimal."""
    gap = abs(gold - answer)
    if not gap:
        return True
    coarse = max((found for found in decimals if found), key=lambda found: found[2])
    if coarse[1] >= _LEAST_DIGITS and gap <= coarse[2] and (all(decimals) or not _integral(gold, answer)):
        return True
    endless = [
        value for value, found in ((gold, decimals[0]), (answer, decimals[1])) if not found and not _is_decimal(value)
    ]
    return bool(endless) and gap <= Fraction(1, 10**5) * max(abs(gold), abs(answer))


def _integral(*values: Fraction) -> bool:
    return any(value.denominator == 1 for value in values)


def _is_decimal(value: Fraction) -> bool:
    return not 10**60 % value.denominator


def _float(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


def _regions(gold: str, answer: str) -> Any:
    """Inequalities against inequalities, intervals and unions; NotImplemented where neither is one."""
    found = [regions.region(text) for text in (gold, answer)]
    if not any(found):
        return NotImplemented
    if found[0] and found[1]:
        return algebra.sets(found[0][1], found[1][1]) if found[0][0] == found[1][0] else False
    other = algebra.parse(answer if found[0] else gold)
    region = found[0] or found[1]
    if region is None or other is None or not hasattr(other, "is_subset"):
        return NotImplemented
    return algebra.sets(region[1], other)


def _brackets_clash(gold: str, answer: str) -> bool:
    """(1,2) and {1,2}, which the parser cannot always tell apart."""
    opened = [found[0] if (found := enclosed(text)) and "," in found[1] else "" for text in (gold, answer)]
    return r"\{" in opened and opened[0] != opened[1] and all(opened)


def _other_notation(gold: str, answer: str) -> Truth:
    r"""What is different as it is written may be equal otherwise: degrees and radians, `\log` for the natural logarithm."""
    degrees = [r"^\circ" in text for text in (gold, answer)]
    if degrees[0] != degrees[1]:
        turned = [text.replace(r"^\circ", r"\cdot\frac{\pi}{180}") for text in (gold, answer)]
        return True if algebra.equal(algebra.parse(turned[0]), algebra.parse(turned[1])) else False
    natural = [re.sub(r"\\log(?![A-Za-z_])", r"\\ln", text) for text in (gold, answer)]
    if natural != [gold, answer] and algebra.equal(algebra.parse(natural[0]), algebra.parse(natural[1])):
        return None
    if re.sub(r"\\mathbb\{([A-Z])\}", r"\1", gold) == re.sub(r"\\mathbb\{([A-Z])\}", r"\1", answer):
        return None
    counts = [text.count(",") for text in (gold, answer)]
    return None if r"\ldots" in gold + answer and counts[0] != counts[1] and all(counts) else False


def _named(gold: Reading, answer: Reading) -> Truth:
    """`x = 5\\text{ cm}` against 5; two names must be the same."""
    first, second = ((r.value, r.name) if isinstance(r, Named) else _split_name(r) for r in (gold, answer))
    found = same(first[0], second[0])
    if first[1] and second[1] and found:
        return True if mathematics_equal(first[1], second[1]) else None
    simple = all(re.fullmatch(r"[A-Za-z\\{}_()\d,' ]*", name) for name in (first[1], second[1]))
    return found if simple or not found or any(TITLE.fullmatch(name) for name in (first[1], second[1])) else None


def _split_name(reading: Reading) -> tuple[Reading, str]:
    if isinstance(reading, Mathematics) and reading.latex.count("=") == 1:
        name, _, value = reading.latex.partition("=")
        return Mathematics(value.strip()), name.strip()
    return reading, ""


def _choices(gold: Reading, answer: Reading) -> Truth:
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return gold.letter == answer.letter and same(gold.content, answer.content)
    choice, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(choice, Choice)
    return other == Mathematics(choice.letter) or same(choice.content, other)


def _given(gold: Reading, answer: Reading) -> Truth:
    given = [reading if isinstance(reading, Given) else Given(reading, None) for reading in (gold, answer)]  # type: ignore[arg-type]
    values = [reading.value for reading in given]
    conditions = conditions_same(*(reading.condition for reading in given))
    if values[0] is None or values[1] is None:
        if values[0] is None and values[1] is None:
            return conditions
        statement, other = (given[0].condition, answer) if values[0] is None else (given[1].condition, gold)
        if isinstance(other, Mathematics) and _only_number(other):
            return None if _says(statement, other.latex) else False
        return False if isinstance(other, Words) else None
    found = same(values[0], values[1])
    if found is False and conditions is not False and _renamed_letter(given):
        return None
    return algebra.every((found, conditions))


def _says(statement: Condition | None, number: str) -> bool:
    """Whether a sentence such as `There are 8` has the number in it, behind its last colon."""
    signs = statement.signs if statement and "not" not in statement.words else ()
    last = max((place for place, sign in enumerate(signs) if sign == ":"), default=-1)
    return number in signs[last + 1 :]


def _renamed_letter(given: list[Given]) -> bool:
    """`2k\\pi, k\\in\\mathbb{Z}` and `2n\\pi, n\\in\\mathbb{Z}` name their letter differently."""
    return (
        all(reading.condition is not None and reading.condition.declares for reading in given)
        and given[0].condition != given[1].condition
    )


def _congruences(gold: Reading, answer: Reading) -> Truth:
    if not (isinstance(gold, Congruence) and isinstance(answer, Congruence)):
        congruence, other = (gold, answer) if isinstance(gold, Congruence) else (answer, gold)
        assert isinstance(congruence, Congruence)
        if not isinstance(other, Mathematics):
            return False
        if re.fullmatch("[A-Za-z]", other.latex):
            return False
        return (
            None if not _only_number(other) or mathematics_equal(congruence.right, other.latex) is not False else False
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


def _based(gold: Reading, answer: Reading) -> Truth:
    """Digits in the same base, or with the base left out; the same number in another base is not what was asked for."""
    readings = [reading if isinstance(reading, Based) else _digits(reading) for reading in (gold, answer)]
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


def _digits(reading: Reading) -> Based | None:
    text = reading.latex if isinstance(reading, Mathematics) else ""
    return Based(text, 0) if re.fullmatch(r"-?[0-9A-Z]+", text) else None


def _value(number: Based) -> int | None:
    try:
        return int(number.digits, number.base or 10)
    except ValueError:
        return None


def _lists(gold: Reading, answer: Reading) -> Truth:
    first, second = (_as_list(reading) for reading in (gold, answer))
    if first is None or second is None:
        return False
    ordered = [reading.brackets[:1] in ("(", "[") for reading in (first, second)]
    if first.brackets and second.brackets and first.brackets != second.brackets:
        return False
    compare_members = algebra.in_order if all(ordered) else algebra.members
    found = compare_members(first.members, second.members, same)
    return None if found and any(ordered) and not all(ordered) else found


def _as_list(reading: Reading) -> Many | None:
    return reading if isinstance(reading, Many) else members_of(reading)


def _worded(gold: Reading, answer: Reading) -> Truth:
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
    return words_same(texts[0], texts[1])


def _as_word(reading: Reading) -> str | None:
    text = reading.latex if isinstance(reading, Mathematics) else ""
    return text if re.fullmatch(r"[A-Za-z]+", text) else None
