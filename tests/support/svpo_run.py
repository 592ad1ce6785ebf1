"""Recipe svpo in two rounds at a small size, as one command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SMALL = shlex.split(
    "--clean.limit 60 --clean.validation 5 --trees.per-problem 1 --trees.search.simulations 48 --pairs.min-margin 0.25 "
    "--tune.epochs 1 --tune.batch-size 8 --tune.micro-batch 4 --tune.workers 1 --trees.resources.replicas 1 --evaluate.limit 8 "
    "--evaluate.samples 4 --evaluate.beam.groups 2 --evaluate.budgets 4 --evaluate.bootstrap 200 --evaluate.resources.replicas 1"
)
ROUNDS = 2
LIMIT_S = 1200.0


class SvpoRun(NamedTuple):
    """The arguments of a run, its number of rounds, and its command when it has ended."""

    arguments: list[str]
    rounds: int
    command: Future[subprocess.CompletedProcess[str]]


@contextmanager
def svpo_run(root: Path) -> Iterator[SvpoRun]:
    """A run that has started and goes on in the background."""
    arguments = ["svpo", "--root", str(root), *SMALL]
    command = [sys.executable, "-m", "pipelines.run", *arguments, "--rounds", str(ROUNDS)]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(subprocess.run, command, capture_output=True, text=True, timeout=LIMIT_S)
        yield SvpoRun(arguments, ROUNDS, done)
