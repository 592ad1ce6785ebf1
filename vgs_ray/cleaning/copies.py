"""Copies of problems: exact copies by their normalized text, near copies by MinHash.

In: a `Fingerprint` of each problem, and its answer. Out: the copies, each with the earlier row that it repeats. Two problems
that differ in a number or a sign are different problems. Near copies must therefore have the same numbers and operators in the
same order, and the same answer. Pure functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from vgs_ray.grade import quick_equivalent

SHINGLE = 3  # tokens; long enough to keep word order, short enough that one changed word changes few shingles
BANDS, BAND_ROWS = (
    32,
    4,
)  # a pair with Jaccard similarity 0.7 shares a band with probability 0.9998, one with 0.3 in 0.23
MOST_COMPARED = 200  # kept rows that one row is compared with; keeps the time linear for thousands of similar rows

_SIZES = re.compile(r"\\(?:(?:left|right|displaystyle|bigg?[lr]?)(?![a-z])|[()\[\],;:! ])")
_NUMBERING = re.compile(
    r"\A\s*(?:(?:problem|example|exercise|question|task)\s*(?:\d+(?:\.\d+)*|[ivx]+)\s*[.:)]?|\d+(?:\.\d+)*[.)])\s+"
    r"(?=\D)"
)
_POINTS = re.compile(r"[(\[]\s*\d+\s*(?:points?|pts?|marks?)\.?\s*[)\]]")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-z])")
_LONE = re.compile(r"\{\s*([^\W\d_]+|\d+(?:\.\d+)?)\s*\}")  # braces around one token: x^{2} is x^2
# A number, a word or command, a prime, or any operator or bracket. White space and punctuation are left out.
_TOKENS = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|(?<=[a-z)])'(?![a-z])|[^\s\w$\\.,;:?'\"`“”‘’]")


def normalize_problem(text: str) -> str:
    """The tokens of a problem without case, spacing, punctuation, bracket sizes and numbering: equal for exact copies.

    Texts with the same `ids.problem_id` have the same normal form. Brackets and braces stay: 2(x+1) is not 2x+1.
    """
    text = unicodedata.normalize("NFKC", " ".join(text.lower().split())).lower()
    text = _POINTS.sub(" ", _NUMBERING.sub("", text, count=1))
    text = _FRACTION.sub(r"\\frac", _SHORT_FRACTION.sub(r"\\frac \1 \2 ", _SIZES.sub(" ", text)))
    text = _LONE.sub(r" \1 ", text)
    return " ".join(_TOKENS.findall(text))


_TO_TWENTY = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_TO_TWENTY)}
_NUMBER_WORDS |= {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100", "thousand": "1000"}
_NUMBER_WORDS |= {"once": "1", "twice": "2", "double": "2", "thrice": "3", "triple": "3", "half": "1/2", "third": "1/3"}
_OPERATORS = {"times": "*", "cdot": "*", "·": "*", "×": "*", "div": "/", "÷": "/", "frac": "/", "le": "≤", "leq": "≤"}
_OPERATORS |= {"ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "lt": "<", "gt": ">", "−": "-", "–": "-"}
_OPERATORS |= {name: name for name in ("pm", "mp", "sqrt", "not", "no", "≤", "≥", "≠", *"+-*/^=<>!'|%±√")}
_OPERATORS |= {name: name for name in ("sin", "cos", "tan", "log", "ln", "even", "odd", "max", "min")}


def numbers_and_operators(normal: str) -> list[str]:
    """The numbers and operators of a normalized text, in order. Near copies must have the same."""
    tokens = normal.split()
    values = (token if token[0].isdigit() else _NUMBER_WORDS.get(token) or _OPERATORS.get(token) for token in tokens)
    return [value for value in values if value]


def shingles(normal: str) -> np.ndarray:
    """Hashes of all runs of `SHINGLE` tokens without brackets: (n,) uint32, sorted. A shorter text is one run."""
    tokens = [token for token in normal.split() if token not in "()[]{}"]
    runs = {" ".join(tokens[i : i + SHINGLE]) for i in range(max(len(tokens) - SHINGLE + 1, 1))}
    return np.array(sorted(crc32(run.encode()) for run in runs), np.uint32)


def similarity(one: np.ndarray, two: np.ndarray) -> float:
    """Jaccard similarity of two sets of hashes (sorted, each once), in [0, 1]."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / max(len(one) + len(two) - shared, 1)


@cache
def _empty_minhash() -> Any:
    from datasketch import MinHash  # the import takes 0.7 s, and only workers of the stage need it

    return MinHash(BANDS * BAND_ROWS, seed=1, hashfunc=int)


def minhash(hashes: np.ndarray) -> np.ndarray:
    """The MinHash signature of a set: (BANDS * BAND_ROWS,) uint32. The share of equal entries estimates the similarity."""
    signature = _empty_minhash().copy()
    signature.update_batch(hashes.tolist())
    return np.asarray(signature.hashvalues, np.uint32)


def _hash64(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class Fingerprint(NamedTuple):
    """The data of a problem that its copies are found with.

    Attributes:
        text: hash of the normalized text.
        shingles: see `shingles`.
        bands: keys of the `BANDS` bands; near copies share at least one. A key is a hash of `BAND_ROWS` entries of the
            signature and of the `numbers_and_operators`, so that problems with different numbers share none.
    """

    text: int
    shingles: np.ndarray
    bands: list[int]


def fingerprint(problem: str) -> Fingerprint:
    """The fingerprint of a problem. It is the same in every process."""
    normal = normalize_problem(problem)
    hashes = shingles(normal)
    signature = minhash(hashes).reshape(BANDS, BAND_ROWS)
    seed = " ".join(numbers_and_operators(normal)).encode()
    bands = [_hash64(bytes([band]) + signature[band].tobytes() + seed) for band in range(BANDS)]
    return Fingerprint(_hash64(normal.encode()), hashes, bands)


class FingerprintedRow(NamedTuple):
    """A row by its position in the source, with its answer and its fingerprint."""

    row: int
    answer: str
    fingerprint: Fingerprint


class CopiedRow(NamedTuple):
    """A row that repeats an earlier row. `evidence` names the earlier row."""

    row: int
    reason: str  # duplicate | near_duplicate
    evidence: str


def find_copies(fingerprinted: Iterable[FingerprintedRow], threshold: float) -> list[CopiedRow]:
    """The rows that copy an earlier row. The result does not depend on the order of the input.

    The first row with a normalized text is kept. Rows are near copies if the similarity of their shingles is at least
    `threshold`, their numbers and operators are equal, and their answers are known to be equal. The first of them is kept. A row
    is compared only with rows that are kept.

    Args:
        fingerprinted: rows with distinct positions.
        threshold: Jaccard similarity in (0, 1]. A value over 1 finds exact copies only.
    """
    rows = sorted(fingerprinted, key=lambda row: row.row)
    shared = _shared_bands(rows)
    first: dict[int, FingerprintedRow] = {}
    kept: dict[int, list[FingerprintedRow]] = defaultdict(list)
    copies = []
    for row in rows:
        original = first.setdefault(row.fingerprint.text, row)
        if original is not row:
            copies.append(CopiedRow(row.row, "duplicate", _exact_evidence(original, row)))
            continue
        bands = [band for band in row.fingerprint.bands if band in shared]
        near = _near_copy(row, [other for band in bands for other in kept[band]], threshold)
        if near:
            copies.append(near)
            continue
        for band in bands:
            kept[band].append(row)
    return copies


def _shared_bands(rows: Sequence[FingerprintedRow]) -> set[int]:
    """Keys of bands that more than one row has. The others are not stored."""
    if not rows:
        return set()
    keys = np.concatenate([np.array(row.fingerprint.bands, np.uint64) for row in rows])
    values, counts = np.unique(keys, return_counts=True)
    return set(values[counts > 1].tolist())


def _exact_evidence(original: FingerprintedRow, row: FingerprintedRow) -> str:
    if quick_equivalent(original.answer, row.answer):
        return f"row {original.row}"
    return f"row {original.row}, whose answer is {original.answer[:60]} instead of {row.answer[:60]}"


def _near_copy(row: FingerprintedRow, others: Sequence[FingerprintedRow], threshold: float) -> CopiedRow | None:
    distinct = sorted({other.row: other for other in others}.items())[:MOST_COMPARED]
    for _, other in distinct:
        value = similarity(other.fingerprint.shingles, row.fingerprint.shingles)
        if value >= threshold and quick_equivalent(other.answer, row.answer):
            return CopiedRow(row.row, "near_duplicate", f"row {other.row}, similarity {value:.2f}")
    return None
