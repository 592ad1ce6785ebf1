r"""Quantities: numbers with units (`12\text{ hours }30\text{ minutes}`), and marks such as AM in `9:30\text{ AM}`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from vgs_ray.answers import units
from vgs_ray.answers.latex_commands import FUNCTIONS
from vgs_ray.answers.units import UNIT_LETTERS, Unit

_MONTHS = """
    january february march april may june july august september october november december
    """.split()
_MARK_GROUPS = (
    {"am", "pm", "noon", "midnight"},
    {*_MONTHS, *(month[:3] for month in _MONTHS), "sept"},
    {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"},
    set("""
    north south east west northeast northwest southeast southwest up down left right upward downward clockwise
    counterclockwise anticlockwise forward backward
    """.split()),
    {"bc", "ad", "bce", "ce"},
    set("""
    more less fewer greater larger smaller increase decrease profit loss gain deposit withdrawal older younger above
    below
    """.split()),
    {"ago", "later", "before", "after", "early", "late", "earlier"},
)  # fmt: skip
_MARKS = {word: number for number, group in enumerate(_MARK_GROUPS) for word in group}
_NO_NOUNS = set(
    """
    is are was if when where for not no or and than minus plus times out to with without without only but be by from
    over under per the then none never wrong false true cannot half twice double squared cubed infinitely otherwise
    odd even prime mod base such that which unless given positive negative integer integers real third thirds halves
    quarter quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths factorial
    """.split()
)
_HEDGES = {"about", "approximately", "approx", "around", "roughly", "exactly", "only", "total", "a", "of", "rs", "us"}

_TEXT = r"\\text\{[^{}]*\}"
_WORD = rf"(?<![A-Za-z\\])(?:[A-Za-z]{{2,}}(?:\.[a-z]\.)?|(?<=\d )[{UNIT_LETTERS}]|(?<=/)[{UNIT_LETTERS}]|[ap]\.m\.?)(?![A-Za-z])"
_SIGN = r"\^\\circ(?: ?(?:[CF](?![A-Za-z])|\\text\{[CF]\}))?|''|'|\\%|%|\\\$|[€£¥₩₹¢]|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
_FRACTION = r"\\frac\{(?:\\text\{[^{}]*\}|[A-Za-z]{2,})\}\{(?:\\text\{[^{}]*\}|[A-Za-z]{2,})(?:\^\{\d\})?\}"
_BRACKETED = r"\(\s*(?:\\text\{[^{}]*\}|[a-z]{3,}(?: [a-z]{2,}){0,2})\s*\)"
_UNIT = re.compile(rf"{_BRACKETED}|{_FRACTION}|{_TEXT}|{_SIGN}|{_WORD}")
_LINK = re.compile(r"(?:\^\{-?\d\}|\^-?\d|/|\\cdot ?|\\times ?|\s|\.)*")
_POWER_TAIL = re.compile(r"(?:\^\{-?\d\})?\s*")


@dataclass(frozen=True)
class Part:
    r"""A number in LaTeX, its factor and its unit: `3\text{ million km}` is `Part("3", 10**6, km)`."""

    number: str
    scale: int
    unit: Unit


@dataclass(frozen=True)
class Quantity:
    """Parts in the order of the text, and the words that change their meaning (`am`, `may`, `north`)."""

    parts: tuple[Part, ...]
    marks: frozenset[str]


def read_quantity(text: str) -> Quantity | None:
    """Read a whole text as a quantity. None if it has no unit, or if it contains more than numbers, units and marks."""
    pieces = _pieces(text)
    if pieces is None or not any(kind != "number" for kind, _ in pieces):
        return None
    marks: set[str] = set()
    parts: list[Part] = []
    number, prefix = "", ""
    for kind, piece in pieces:
        if kind == "number":
            if number:
                parts.append(Part(number, 1, units.NOTHING))
            number = piece
            continue
        piece, piece_marks = _without_marks(piece)
        marks |= piece_marks
        words = _words(piece)
        if not _bare(piece):
            continue
        if words and all(word in _HEDGES for word in words) and not number:
            continue
        if not number and not parts:
            prefix = piece
        else:
            parsed = units.parse_unit(_bare(piece))
            if parsed is None or not number or not _nouns_are_plain(parsed[1], piece):
                return None
            scale, unit = parsed
            if parts and unit == units.NOTHING and scale > 1 and not prefix:
                return None
            parts.append(Part(number, scale, unit))
            number = ""
    if number:
        parts.append(Part(number, 1, units.NOTHING))
    return _with_prefix(parts, prefix, frozenset(marks))


def _with_prefix(parts: list[Part], prefix: str, marks: frozenset[str]) -> Quantity | None:
    r"""The quantity with a currency before its number: `\$5`, `USD 5`. None if prefix and parts do not form a quantity."""
    if prefix:
        parsed = units.parse_unit(_bare(prefix))
        if parsed is None or parsed[0] != 1 or not units.is_known(parsed[1]) or not parts:
            return None
        first = parts[0]
        if all(power < 0 for _, power in first.unit):  # `\$5` per hour
            parts[0] = Part(first.number, first.scale, parsed[1] | first.unit)
        elif not units.generic(first.unit) and first.unit != parsed[1]:
            return None
        else:
            parts[0] = Part(first.number, first.scale, parsed[1])
    if not parts:
        return None
    if (
        len(parts) > 1
        and not marks
        and (len({part.unit for part in parts}) < len(parts) or any(part.unit == units.NOTHING for part in parts))
    ):
        return None
    if any(part.unit == _DEGREE for part in parts):
        parts = [Part(part.number, part.scale, _OF_AN_ANGLE.get(part.unit, part.unit)) for part in parts]
    return Quantity(tuple(parts), marks)


_DEGREE: Unit = frozenset({("degree", 1)})
_OF_AN_ANGLE: dict[Unit, Unit] = {
    frozenset({("prime", 1)}): frozenset({("arcminute", 1)}),
    frozenset({("doubleprime", 1)}): frozenset({("arcsecond", 1)}),
}


def _pieces(text: str) -> list[tuple[str, str]] | None:
    """Split a text into ("number", text) and ("unit", text). Units in a quotient, product or power are one piece: `km/h^2`."""
    pieces: list[tuple[str, str]] = []
    end, depth, seen = 0, 0, 0
    for match in _UNIT.finditer(text):
        if match.start() < end:
            continue
        depth += sum((sign in "{([") - (sign in "})]") for sign in text[seen : match.start()])
        seen = match.start()
        before = text[end : match.start()]
        linked = bool(pieces and pieces[-1][0] == "unit" and _LINK.fullmatch(before))
        if depth or not _is_unit(match[0], before, linked):
            continue
        number = before.strip().strip(",")
        if linked:
            pieces[-1] = ("unit", f"{pieces[-1][1]}{before}{'' if before.strip() else ' '}{match[0]}")
        else:
            if number:
                pieces.append(("number", number))
            pieces.append(("unit", match[0]))
        end = seen = match.end()
        tail = _POWER_TAIL.match(text, end)
        if tail and tail[0].strip():
            pieces[-1] = ("unit", pieces[-1][1] + tail[0])
            end = seen = tail.end()
    rest = text[end:].strip().strip(",")
    if rest:
        pieces.append(("number", rest))
    operators = re.compile(r"^[+*=<>^_!/]|^\\(?:cdot|times|frac|sqrt|le|ge|pm)|[+*/=<>(\[-]$")
    later = [piece for kind, piece in pieces[1:] if kind == "number"]
    return None if any(operators.search(piece) for piece in later) else pieces


def _is_unit(piece: str, before: str, linked: bool) -> bool:
    """Whether a piece may be a unit, and not the name of a function or a variable of the mathematics around it."""
    if piece.startswith("\\text{") and len(piece) == 8 and piece[6].isascii():
        return (linked or bool(re.search(r"[\w}/ )]$|^$", before))) and piece[6] in UNIT_LETTERS
    if piece.startswith("\\frac"):
        parsed = units.parse_unit(_bare(piece))
        return parsed is not None and units.is_known(parsed[1])
    if len(piece) == 1 and piece.isalpha() and piece.isascii() and before.endswith("/"):
        return linked
    if piece[0] == "(":
        return bool(re.search(r"[\d}] ?$", before))
    if piece[0].isalpha() and piece.isascii():
        word = piece.casefold().rstrip(".")
        if word == "and":
            return True
        if word in FUNCTIONS or re.search(r"[_^\\{]$", before):
            return False
        known = units.name_of(piece) or units.magnitude_of(piece) or word.replace(".", "") in _MARKS or word in _HEDGES
        return bool(known) or (len(word) > 3 and bool(re.search(r"[aeiouy]", word)))
    if piece in ("'", "''"):
        return bool(re.search(r"[\d}]$", before))
    return True


def _bare(piece: str) -> str:
    r"""A unit without `\text{}`, `\frac{}{}` and the dots of abbreviations, for `units.parse_unit`."""
    piece = re.sub(r"\\frac\{([^{}]*(?:\{[^{}]*\})?[^{}]*)\}\{([^{}]*(?:\{[^{}]*\})?(?:\^\{\d\})?)\}", r"\1/\2", piece)
    piece = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", piece)
    piece = re.sub(r"(?<=[A-Za-z])\.(?=\s|$)|(?<=[ap])\.(?=m)", "", piece).strip(" ,.;")
    return re.sub(r"\s*,?\s*(?<![A-Za-z])and$", "", piece)


def _words(piece: str) -> list[str]:
    bare = _bare(piece).casefold()
    bare = re.sub(r"\b([ap])\.? ?m\.?(?=\W|$)", r"\1m", bare)
    return re.findall(r"[a-z]+", bare) if re.fullmatch(r"[a-z\s,'’]+", bare) else []


def _without_marks(piece: str) -> tuple[str, frozenset[str]]:
    """Separate a piece from the words that change its meaning: `km north of east` is `km` and {`north+east`}."""
    bare = re.sub(r"\b([ap])\. ?m\.?(?=\W|$)", r"\1m", _bare(piece), flags=re.IGNORECASE)
    named = [word.casefold() for word in re.findall(r"[A-Za-z]+", bare) if word.casefold() in _MARKS]
    if not named:
        return piece, frozenset()
    rest = " ".join(word for word in bare.split() if word.casefold().strip(",.") not in {*_MARKS, "of"})
    marks: dict[int, list[str]] = {}
    for word in named:
        marks.setdefault(_MARKS[word], []).append(word[:3] if _MARKS[word] == 1 else word)
    return rest, frozenset("+".join(words) for words in marks.values())


def _nouns_are_plain(unit: Unit, piece: str) -> bool:
    """Whether at most three words are no known units, and none of them changes the meaning of the number, such as `half`."""
    nouns = [name[1:] for name, _ in unit if name.startswith("?")]
    if re.search(r"[0-9=<>+]", re.sub(r"\^\{?-?\d\}?", "", _bare(piece))):
        return False
    words = re.findall(r"[a-z]+", _bare(piece).casefold())
    return len(nouns) <= 3 and not (_NO_NOUNS & set(words) and nouns)


def marks_clash(first: frozenset[str], second: frozenset[str]) -> bool | None:
    """Whether marks contradict each other, as `am` and `pm` do. None if one side omits a mark."""
    if first == second:
        return False
    for number in range(len(_MARK_GROUPS)):
        ours, theirs = ({mark for mark in marks if _mark_group(mark) == number} for marks in (first, second))
        if ours and theirs and ours != theirs:
            return True
    return None


def _mark_group(mark: str) -> int | None:
    word = mark.split("+")[0]
    return _MARKS.get(word)


def total(values: list[tuple[Fraction, Unit]]) -> tuple[Fraction, frozenset[tuple[str, int]]] | None:
    """The sum of parts in base units, with its dimension: `1 h 30 min` is (5400, time). None if they cannot be converted."""
    converted = [(value, units.dimension_and_size(unit)) for value, unit in values]
    dimensions = {unit[0] for _, unit in converted if unit}
    if len(dimensions) != 1 or not all(unit for _, unit in converted):
        return None
    return sum((value * unit[1] for value, unit in converted if unit), Fraction(0)), dimensions.pop()
