"""TVM labels: a value for each token of sampled paths (arXiv 2407.12863, equation 8). Pure.

In: paths sampled from one problem, and whether each ended correct. Out: one number in [0, 1] for each token.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class _Prefix:
    """Paths that share the tokens up to here."""

    paths: int = 0
    correct: int = 0
    next: dict[int, _Prefix] = field(default_factory=dict)


def token_values(paths: list[list[int]], correct: list[bool]) -> list[list[float]]:
    """P(the answer is correct | the tokens up to and including this one), estimated from the paths themselves.

    The value of token k of a path is the share of correct paths among those that begin with the same k tokens. A path
    that occurs twice counts twice. Takes time and memory linear in the number of tokens.

    Args:
        paths: (paths, own length) response tokens; all of one problem, so that equal prefixes mean the same.
        correct: (paths,) whether each path's answer is correct.

    Returns:
        (paths, own length) values in [0, 1]; an empty path has none.

    Raises:
        ValueError: paths and outcomes differ in number.
    """
    if len(paths) != len(correct):
        raise ValueError(f"{len(paths)} paths have {len(correct)} outcomes: pass one outcome for each path")
    root = _Prefix()
    walks = [_walk(root, path, ok) for path, ok in zip(paths, correct, strict=True)]
    return [[at.correct / at.paths for at in walk] for walk in walks]


def _walk(root: _Prefix, path: list[int], correct: bool) -> list[_Prefix]:
    at, walk = root, []
    for token in path:
        at = at.next.setdefault(token, _Prefix())
        at.paths += 1
        at.correct += bool(correct)
        walk.append(at)
    return walk
