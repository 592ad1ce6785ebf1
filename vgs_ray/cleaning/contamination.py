"""Contamination: runs of eight words that a training problem shares with a benchmark problem.

In: the benchmarks' problems, once, into an `BenchmarkIndex`; then one problem at a time. Out: the share of the problem's 8-grams
that lie in one benchmark problem, with the 8-gram and that problem's name. Pure functions; an `BenchmarkIndex` is numpy arrays.
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
    """Words of a text without case, punctuation and code of figures; a formula without spaces is one word."""
    text = unicodedata.normalize("NFKC", replace_figures(text, " ")).lower()
    text = " ".join(re.sub(r"\\(?=\s)", " ", text).split())
    return _PUNCTUATION.sub("", _SPACES_IN_MATHS.sub(r"\1", text)).split()


def grams(text: str) -> list[str]:
    """Each run of `GRAM` words once, in order; the whole text when it is shorter."""
    found = words(text)
    if not found:
        return []
    return list(dict.fromkeys(" ".join(found[i : i + GRAM]) for i in range(max(len(found) - GRAM + 1, 1))))


class BenchmarkIndex(NamedTuple):
    """The 8-grams of the benchmarks.

    Attributes:
        hashes: (n,) uint64, sorted; one for each 8-gram of each problem.
        problems: (n,) int32, the problem of each, an index into `names`.
        names: such as `aime-24.jsonl row 3`.
    """

    hashes: np.ndarray
    problems: np.ndarray
    names: list[str]


def _hashes(texts: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts), np.uint64)


def index_benchmarks(problems: Iterable[tuple[str, str]]) -> BenchmarkIndex:
    """BenchmarkIndex (name, text) pairs."""
    names, hashes, counts = [], [np.empty(0, np.uint64)], []
    for name, text in problems:
        found = _hashes(grams(text))
        names.append(name)
        hashes.append(found)
        counts.append(len(found))
    every = np.concatenate(hashes)
    owners = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    order = np.lexsort((owners, every))
    return BenchmarkIndex(every[order], owners[order], names)


class Overlap(NamedTuple):
    """How much of a problem lies in one benchmark problem: a share in (0, 1], its name, and the first shared 8-gram."""

    share: float
    name: str
    gram: str


def overlap(problem: str, index: BenchmarkIndex) -> Overlap | None:
    """The benchmark problem that holds most of a problem's 8-grams (the first of equals); None when none holds any."""
    found = grams(problem)
    hashes = _hashes(found)
    starts, ends = np.searchsorted(index.hashes, hashes), np.searchsorted(index.hashes, hashes, side="right")
    hits = [index.problems[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
    if not hits:
        return None
    counts = np.bincount(np.concatenate(hits))
    best = int(counts.argmax())
    for gram, start, end in zip(found, starts, ends, strict=True):
        if best in index.problems[start:end]:
            return Overlap(float(counts[best]) / len(found), index.names[best], gram)
    raise AssertionError("unreachable: the best problem has an 8-gram")
