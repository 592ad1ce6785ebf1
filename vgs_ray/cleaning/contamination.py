"""Contamination: runs of eight words that a training problem shares with a benchmark problem.

In: the problems of the benchmarks, which make a `BenchmarkIndex`, and one training problem at a time. Out: the share of its
8-grams that occur in one benchmark problem, with the name of that problem and an 8-gram. Pure functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from vgs_ray.cleaning.figures import replace_figures

GRAM = 8  # words, as in the paper (arXiv 2505.17373)

_SPACES_IN_MATHS = re.compile(r" ?([-+*/^=<>|]) ?")
_PUNCTUATION = re.compile(r"\\(?:left|right|displaystyle|[dt](?=frac)|[()\[\],;:! ])|[$\\{}()\[\].,;:!?'\"`“”‘’_]")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and figure code. A formula without spaces is one word."""
    text = unicodedata.normalize("NFKC", replace_figures(text, " ")).lower()
    text = " ".join(re.sub(r"\\(?=\s)", " ", text).split())
    return _PUNCTUATION.sub("", _SPACES_IN_MATHS.sub(r"\1", text)).split()


def grams(text: str) -> list[str]:
    """The distinct runs of `GRAM` words, in order. A shorter text is one run."""
    tokens = words(text)
    if not tokens:
        return []
    return list(dict.fromkeys(" ".join(tokens[i : i + GRAM]) for i in range(max(len(tokens) - GRAM + 1, 1))))


class BenchmarkIndex(NamedTuple):
    """The 8-grams of the benchmarks.

    Attributes:
        hashes: (n,) uint64, sorted; one for each 8-gram of each problem.
        problems: (n,) int32, the problem of each hash, as an index into `names`.
        names: of the problems, such as `aime-24.jsonl row 3`.
    """

    hashes: np.ndarray
    problems: np.ndarray
    names: list[str]


def _hashes(texts: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts), np.uint64)


def index_benchmarks(problems: Iterable[tuple[str, str]]) -> BenchmarkIndex:
    """Index the 8-grams of (name, text) pairs."""
    names, hashes_by_problem = [], [np.empty(0, np.uint64)]
    for name, text in problems:
        names.append(name)
        hashes_by_problem.append(_hashes(grams(text)))
    hashes = np.concatenate(hashes_by_problem)
    owners = np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, hashes_by_problem[1:])))
    order = np.lexsort((owners, hashes))
    return BenchmarkIndex(hashes[order], owners[order], names)


class Overlap(NamedTuple):
    """The overlap with one benchmark problem: a share in (0, 1], the name of that problem, and the first shared 8-gram."""

    share: float
    name: str
    gram: str


def overlap(problem: str, index: BenchmarkIndex) -> Overlap | None:
    """The overlap with the benchmark problem that shares most 8-grams (the first one in a tie). None if no 8-gram is shared."""
    own_grams = grams(problem)
    hashes = _hashes(own_grams)
    starts, ends = np.searchsorted(index.hashes, hashes), np.searchsorted(index.hashes, hashes, side="right")
    hits = [index.problems[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
    if not hits:
        return None
    counts = np.bincount(np.concatenate(hits))
    best = int(counts.argmax())
    for gram, start, end in zip(own_grams, starts, ends, strict=True):
        if best in index.problems[start:end]:
            return Overlap(float(counts[best]) / len(own_grams), index.names[best], gram)
    raise AssertionError("unreachable: the best problem has an 8-gram")
