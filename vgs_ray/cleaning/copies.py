"""Copies of problems: exact ones by their normalized text, near ones by MinHash.

In: problem texts with their answers, one `Fingerprint` each. Out: for every copy the earlier row that it repeats. Two
problems that differ only in a number or a sign are different problems, so near copies must agree in all numbers and
operators, in their order, and in their answer. Pure functions.
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

SHINGLE = 3  # tokens; long enough to hold an order, short enough that one changed word leaves most of a problem
BANDS, BAND_ROWS = (
    32,
    4,
)  # a pair with Jaccard similarity 0.7 shares a band with probability 0.9998, one with 0.3 in 0.23
MOST_COMPARED = 200  # kept rows that one row is compared with, so that thousands of similar rows stay linear

_SIZES = re.compile(r"\\(?:(?:left|right|displaystyle|bigg?[lr]?)(?![a-z])|[()\[\],;:! ])")
_NUMBERING = re.compile(
    r"\A\s*(?:(?:problem|example|exercise|question|task)\s*(?:\d+(?:\.\d+)*|[ivx]+)\s*[.:)]?|\d+(?:\.\d+)*[.)])\s+"
    r"(?=\D)"
)
_POINTS = re.compile(r"[(\[]\s*\d+\s*(?:points?|pts?|marks?)\.?\s*[)\]]")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-z])")
_LONE = re.compile(r"\{\s*([^\W\d_]+|\d+(?:\.\d+)?)\s*\}")  # braces around one token say nothing: x^{2} is x^2
# A number, a word or command, a prime, or any operator or bracket; white space and punctuation go.
_TOKENS = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|(?<=[a-z)])'(?![a-z])|[^\s\w$\\.,;:?'\"`“”‘’]")


def normalize_problem(text: str) -> str:
    """The tokens of a text without case, spacing, punctuation, sizes of brackets, numbering: equal for exact copies.

    Texts with one `ids.problem_id` have one normal form. Brackets and braces stay: 2(x+1) is not 2x+1.
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
    """The numbers and operators of a normalized text, in order: what a near copy may not change."""
    found = []
    for token in normal.split():
        known = token if token[0].isdigit() else _NUMBER_WORDS.get(token) or _OPERATORS.get(token)
        if known:
            found.append(known)
    return found


def shingles(normal: str) -> np.ndarray:
    """Hashes of all runs of `SHINGLE` tokens (brackets left out), (n,) uint32, sorted; of the whole text when shorter."""
    tokens = [token for token in normal.split() if token not in "()[]{}"]
    runs = {" ".join(tokens[i : i + SHINGLE]) for i in range(max(len(tokens) - SHINGLE + 1, 1))}
    return np.array(sorted(crc32(run.encode()) for run in runs), np.uint32)


def similarity(one: np.ndarray, two: np.ndarray) -> float:
    """Jaccard similarity of two sets of hashes (sorted, each once), in [0, 1]."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / max(len(one) + len(two) - shared, 1)


@cache
def _empty_minhash() -> Any:
    from datasketch import MinHash  # 0.7 s, and only the stage's workers need it

    return MinHash(BANDS * BAND_ROWS, seed=1, hashfunc=int)


def minhash(hashes: np.ndarray) -> np.ndarray:
    """The MinHash signature of a set, (BANDS * BAND_ROWS,) uint32: two agree at a place with their sets' similarity."""
    signature = _empty_minhash().copy()
    signature.update_batch(hashes.tolist())
    return np.asarray(signature.hashvalues, np.uint32)


def _hash64(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class Fingerprint(NamedTuple):
    """What is needed of a problem to find its copies, without the text.

    Attributes:
        text: hash of the normalized text.
        shingles: see `shingles`.
        bands: keys of `BANDS` bands; near copies share at least one. Each is a hash of `BAND_ROWS` places of the
            signature together with the `numbers_and_operators`, so that problems with other numbers never meet.
    """

    text: int
    shingles: np.ndarray
    bands: list[int]


def fingerprint(problem: str) -> Fingerprint:
    """The fingerprint of a problem's text; the same in every process."""
    normal = normalize_problem(problem)
    hashes = shingles(normal)
    signature = minhash(hashes).reshape(BANDS, BAND_ROWS)
    seed = " ".join(numbers_and_operators(normal)).encode()
    bands = [_hash64(bytes([band]) + signature[band].tobytes() + seed) for band in range(BANDS)]
    return Fingerprint(_hash64(normal.encode()), hashes, bands)


class FingerprintedRow(NamedTuple):
    """A row that may be a copy: its position in the source, its answer, its fingerprint."""

    row: int
    answer: str
    fingerprint: Fingerprint


class CopiedRow(NamedTuple):
    """A row that repeats an earlier one. `evidence` names that one."""

    row: int
    reason: str  # duplicate | near_duplicate
    evidence: str


def find_copies(candidates: Iterable[FingerprintedRow], threshold: float) -> list[CopiedRow]:
    """The copies among rows, whatever the order in which they are given.

    The first row with a normalized text stays. Of near copies (similarity of shingles at least `threshold`, equal numbers
    and operators, answers that are known to be equal) the first stays, and a row is compared only with rows that stay.

    Args:
        candidates: rows with different positions.
        threshold: Jaccard similarity in (0, 1]; over 1 finds exact copies only.
    """
    rows = sorted(candidates, key=lambda candidate: candidate.row)
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
        near = _near(row, [other for band in bands for other in kept[band]], threshold)
        if near:
            copies.append(near)
            continue
        for band in bands:
            kept[band].append(row)
    return copies


def _shared_bands(rows: Sequence[FingerprintedRow]) -> set[int]:
    """Bands that more than one row has; the others need no memory."""
    if not rows:
        return set()
    keys = np.concatenate([np.array(row.fingerprint.bands, np.uint64) for row in rows])
    values, counts = np.unique(keys, return_counts=True)
    return set(values[counts > 1].tolist())


def _exact_evidence(original: FingerprintedRow, row: FingerprintedRow) -> str:
    if quick_equivalent(original.answer, row.answer):
        return f"row {original.row}"
    return f"row {original.row}, with the answer {original.answer[:60]} there and {row.answer[:60]} here"


def _near(row: FingerprintedRow, others: Sequence[FingerprintedRow], threshold: float) -> CopiedRow | None:
    distinct = sorted({other.row: other for other in others}.items())[:MOST_COMPARED]
    for _, other in distinct:
        value = similarity(other.fingerprint.shingles, row.fingerprint.shingles)
        if value >= threshold and quick_equivalent(other.answer, row.answer):
            return CopiedRow(row.row, "near_duplicate", f"row {other.row}, similarity {value:.2f}")
    return None
