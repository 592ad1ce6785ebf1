"""An order of problems in which neighbours have their rows in the same files. Pure numpy."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


def by_locality(problems: NDArray[np.int64], files: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order problems by a breadth-first walk over files that share problems, so that consecutive problems need few files.

    Time and memory are linear in the number of pairs.

    Args:
        problems: (pairs,) codes from 0; each code occurs at least once.
        files: (pairs,) codes from 0 of the files that contain rows of these problems.

    Returns:
        (problems,) each code of a problem once.
    """
    in_file, of_problem = _groups(files, problems), _groups(problems, files)
    opened = np.zeros(len(in_file), bool)
    seen = np.zeros(len(of_problem), bool)
    order: list[int] = []
    for first in range(len(in_file)):
        waiting = deque([] if opened[first] else [first])
        opened[first] = True
        while waiting:
            for problem in in_file[waiting.popleft()]:
                if seen[problem]:
                    continue
                seen[problem] = True
                order.append(int(problem))
                shared = of_problem[problem]
                waiting.extend(shared[~opened[shared]].tolist())
                opened[shared] = True
    return np.array(order, np.int64)


def _groups(keys: NDArray[np.int64], values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The values of each key from 0 to the largest key."""
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(keys))[:-1]) if len(keys) else []
