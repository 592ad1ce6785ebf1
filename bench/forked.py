"""Forked processes that call a function, and get SIGKILL or SIGSTOP at named failpoints."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from pipelines.tables.stage_table import Displaced
from vgs_ray.data import failpoints

COUNT_ONLY = "none=kill"
"""Arms no point, but counts the passings."""


class Child:
    """A forked process that calls a function, with points armed. The parent itself uses no storage, so that it may fork."""

    def __init__(self, points: str, function: Callable[..., Any], *arguments: Any) -> None:
        self.reads, writes = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writes)
            return
        code = 0
        try:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            failpoints.arm(points)
            result = function(*arguments)
            with os.fdopen(writes, "wb") as pipe:
                pickle.dump((result, failpoints.passed), pipe)
        except Displaced:
            code = 3
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            os._exit(code)

    def wait(self) -> str:
        """Wait until it ends or is stopped: `done`, `killed`, `stopped`, `displaced` or `failed`."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return "stopped"
        if os.WIFSIGNALED(status):
            return "killed"
        return {0: "done", 3: "displaced"}.get(os.WEXITSTATUS(status), "failed")

    def has_ended(self) -> bool:
        """Whether it has ended; raises RuntimeError if it failed."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if status:
            raise RuntimeError(f"process {self.pid} ended with status {status}")
        return pid != 0

    def result(self) -> Any:
        with os.fdopen(self.reads, "rb") as pipe:
            return pickle.load(pipe)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process that nobody kills."""
    child = Child(COUNT_ONLY, function, *arguments)
    if (end := child.wait()) != "done":
        raise RuntimeError(f"{function.__name__} {end}")
    return child.result()[0]
