"""An order of problems in which neighbours share files. Pure numpy."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


def by_locality(problems: NDArray[np.int64], files: NDArray[np.int64]) -> NDArray[np.int64]:
    """Walk from file to file over the problems that they share, breadth first, so that a run of problems needs few files.

    Takes time and memory linear in the number of pairs. Names of files and of problems may be in any order.

    Args:
        problems: (pairs,) codes from 0 on, each at least once.
        files: (pairs,) codes from 0 on: the file holds rows of the problem.

    Returns:
        (problems,) every code once.
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
    """The values of each key, for keys 0 to the largest."""
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(keys))[:-1]) if len(keys) else []
