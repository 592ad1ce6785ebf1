"""Values of the tokens of sampled paths, the targets of a value model with one output. Pure numpy.

In: paths sampled from one problem, and whether the answer of each is correct. Out: for each token a number in [0, 1], or NaN
if it is no target.

- `token_values`: the share of correct paths among those with the same prefix (TVM, arXiv 2407.12863, equation 8).
- `outcome_values`: the outcome of the path (an outcome reward model, ORM).
- `step_values`: the value of `token_values` at the last token of each step (a process reward model, PRM).

After sorting, paths that share a prefix are neighbours, and the lengths of the common prefixes of neighbours tell where a
group of paths splits. The prefix tree is therefore walked without being built: a problem with 56 paths of 16,384 tokens needs
20 MB instead of a node for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vgs_ray.data.lists import common_prefix_length


def token_values(paths: Sequence[ArrayLike], correct: Sequence[bool]) -> list[NDArray[np.float64]]:
    """P(the answer is correct | the tokens up to and including this one), estimated from the paths themselves.

    A token's value is the share of correct paths among all paths that begin with the same tokens. Time and memory are linear
    in the number of tokens.

    Args:
        paths: token ids of each path. Paths may differ in length, be empty, or be equal.
        correct: (paths,) whether each path's answer is correct.

    Returns:
        For each path an array of shape (length of the path,) with values in [0, 1].

    Raises:
        ValueError: paths and outcomes differ in number.
    """
    _check_outcomes(paths, correct)
    tokens = [np.asarray(path, np.int32) for path in paths]
    keys = [path.tobytes() for path in tokens]  # in byte order, paths with a common prefix are neighbours
    order = sorted(range(len(paths)), key=keys.__getitem__)
    shared = np.array([0] + [common_prefix_length(tokens[a], tokens[b]) for a, b in pairwise(order)], np.int64)
    correct_before = [0, *accumulate(bool(correct[index]) for index in order)]
    values = [np.empty(len(path)) for path in tokens]
    groups = [(0, len(order), 0)] if order else []  # neighbours begin..end that share their first `depth` tokens
    while groups:
        begin, end, depth = groups.pop()
        alone = end - begin == 1
        until = len(tokens[order[begin]]) if alone else int(shared[begin + 1 : end].min())
        share = (correct_before[end] - correct_before[begin]) / (end - begin)
        for index in order[begin:end]:
            values[index][depth:until] = share
        if not alone:
            splits = [begin, *(begin + 1 + np.flatnonzero(shared[begin + 1 : end] == until)).tolist(), end]
            groups += [(low, high, until) for low, high in pairwise(splits)]
    return values


def outcome_values(paths: Sequence[ArrayLike], correct: Sequence[bool]) -> list[NDArray[np.float64]]:
    """The outcome of each path, 1 or 0, at all of its tokens. Arguments and result as for `token_values`."""
    _check_outcomes(paths, correct)
    return [np.full(len(np.asarray(path)), float(outcome)) for path, outcome in zip(paths, correct, strict=True)]


def step_values(
    paths: Sequence[ArrayLike], correct: Sequence[bool], delimiters: Sequence[int]
) -> list[NDArray[np.float64]]:
    """The value of each step, at its last token; NaN at the other tokens.

    Math-Shepherd (arXiv 2312.08935, soft estimation) samples completions of each step, and takes the share of correct ones. Here
    the paths that share the step and everything before it take their place, so that all label kinds use the same samples.

    Args:
        paths: as for `token_values`.
        correct: as for `token_values`.
        delimiters: tokens that end a step. The last token of a path ends a step too.
    """
    values = token_values(paths, correct)
    for path, each in zip(paths, values, strict=True):
        inside = ~np.isin(np.asarray(path, np.int32), delimiters)
        inside[-1:] = False
        each[inside] = np.nan
    return values


def _check_outcomes(paths: Sequence[ArrayLike], correct: Sequence[bool]) -> None:
    if len(paths) != len(correct):
        raise ValueError(f"{len(paths)} paths have {len(correct)} outcomes: pass one outcome for each path")
