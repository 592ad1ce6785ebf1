"""Work of tests that takes minutes and is done by other processes. It begins before the first test.

A test module with a function `early_work(folder, environment)` gets its result from `EARLY.result(__name__)`. These functions run
one after another in a thread, beside the tests of `tests/engine` and `tests/pure`, which keep one core busy. Ray gives its
workers a low priority, so that those tests lose little time.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

Work = Callable[[Path, Mapping[str, str]], Any]
"""Gets an empty folder and the environment for its processes: that of this process may be one of another test."""


class EarlyWork:
    """Does the work of the chosen test modules."""

    def __init__(self) -> None:
        self._results: dict[str, Future[Any]] = {}
        self._stopped = threading.Event()

    def start(self, work: Mapping[str, Work]) -> None:
        """Begin with the work of some modules."""
        self._results = {name: Future() for name in work}
        if not work:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="vgs-early-", ignore_cleanup_errors=True)
        self._before = set(psutil.Process().children(recursive=True))
        threading.Thread(target=self._run_all, args=(work, dict(os.environ)), name="early work", daemon=True).start()

    def result(self, module: str) -> Any:
        """Wait for the work of a module."""
        return self._results[module].result()

    def stop(self) -> None:
        """Begin with nothing more, and remove all files. If some work is not done, end its processes."""
        self._stopped.set()
        if not self._results:
            return
        if not all(result.done() for result in self._results.values()):
            for process in set(psutil.Process().children(recursive=True)) - self._before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._folder.cleanup()

    def _run_all(self, work: Mapping[str, Work], environment: Mapping[str, str]) -> None:
        for name, run in work.items():
            if self._stopped.is_set():
                return
            folder = Path(self._folder.name) / name
            folder.mkdir()
            try:
                self._results[name].set_result(run(folder, environment))
            except BaseException as error:
                self._results[name].set_exception(error)


EARLY = EarlyWork()
