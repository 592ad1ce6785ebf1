"""Commands of tests that take minutes, and work in processes of their own.

They start with the first test, one after another, and end beside the tests of `tests/engine` and `tests/pure`, which keep one
core busy. Ray gives its workers a low priority, so these tests lose little time.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from pipelines.serving.ingress import free_ports

ROOT = Path(__file__).parents[2]
SVPO = shlex.split(
    "--clean.limit 60 --clean.validation 5 --trees.per-problem 1 --trees.search.simulations 48 --pairs.min-margin 0.25 "
    "--pairs.per-problem 1 --tune.paths 32 "
    "--tune.epochs 1 --tune.batch-size 8 --tune.micro-batch 4 --tune.workers 1 --trees.resources.replicas 1 --evaluate.limit 8 "
    "--evaluate.samples 4 --evaluate.beam.groups 2 --evaluate.budgets 4 --evaluate.bootstrap 200 --evaluate.resources.replicas 1"
)
SVPO_ROUNDS = 2


class Ended(NamedTuple):
    """A command that has ended.

    Attributes:
        folder: an empty folder at its start.
        output: what it printed.
    """

    folder: Path
    code: int
    output: str


def _svpo(folder: Path) -> list[str]:
    [port] = free_ports(1)
    rounds = ["--rounds", str(SVPO_ROUNDS), "--root", str(folder), "--serve.port", str(port)]
    return ["-m", "pipelines.run", "svpo", *rounds, *SVPO]


def _kills(folder: Path) -> list[str]:
    return [str(ROOT / "bench" / "kills.py"), *shlex.split("--kills 3 --problems 200 --pause 14")]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {"test_kills.py": _kills, "test_svpo.py": _svpo}
"""Arguments of Python for each command, given an empty folder, by the file with its tests."""


class EarlyCommands:
    """Runs the commands whose tests were chosen."""

    def __init__(self) -> None:
        self._ended: dict[str, Future[Ended]] = {}
        self._stopped = threading.Event()
        self._running: subprocess.Popen[str] | None = None

    def start(self, files: Iterable[str]) -> None:
        """Start the commands of these files with tests in a thread."""
        chosen = set(files)
        self._ended = {file: Future() for file in COMMANDS if file in chosen}
        if self._ended:
            self._folder = tempfile.TemporaryDirectory(prefix="vgs-early-", ignore_cleanup_errors=True)
            threading.Thread(target=self._run_all, name="early commands", daemon=True).start()

    def result(self, file: str, timeout_s: float) -> Ended:
        """Wait for the command of a file with tests."""
        return self._ended[file].result(timeout_s)

    def stop(self) -> None:
        """End the running command and its processes, and remove all files."""
        self._stopped.set()
        if running := self._running:
            with suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(running.pid).children(recursive=True), running]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
        if self._ended:
            self._folder.cleanup()

    def _run_all(self) -> None:
        for file, ended in self._ended.items():
            if self._stopped.is_set():
                return
            try:
                ended.set_result(self._run(Path(self._folder.name) / file, COMMANDS[file]))
            except Exception as error:
                ended.set_exception(error)

    def _run(self, folder: Path, arguments: Callable[[Path], list[str]]) -> Ended:
        folder.mkdir()
        self._running = subprocess.Popen(
            [sys.executable, *arguments(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output, _ = self._running.communicate()
        code, self._running = self._running.returncode, None
        return Ended(folder, code, output)


EARLY = EarlyCommands()
