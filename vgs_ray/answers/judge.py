"""Compare answers in worker processes with a limit of wall-clock time for each pair and a limit of memory.

In: pairs (gold, answer). Out: a `Comparison` for each distinct pair. A pair that exceeds the time limit or crashes its worker is
unknown, never incorrect. A worker is `python -m vgs_ray.answers.judge`; it starts when it is needed first, and reads and writes
JSON lines. The parent sets no signal handlers, so a `Judge` works in any thread and inside Ray workers.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from vgs_ray import grade
from vgs_ray.grade import Comparison, Verdict

Pair = tuple[str, str]

START_LIMIT_S = 120.0  # the import of sympy takes long on a busy machine


class _Died(Exception):
    """The worker closed its end of the pipe."""


class _Worker:
    """One worker process."""

    def __init__(self, timeout_s: float, memory_gib: float) -> None:
        path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        self.timeout_s = timeout_s
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vgs_ray.answers.judge", str(timeout_s), str(memory_gib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            start_new_session=True,  # Ctrl-C reaches the parent alone
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout, self.buffer = self.process.stdin, self.process.stdout, b""
        try:
            self._read(START_LIMIT_S)
        except (_Died, TimeoutError) as error:
            raise RuntimeError(self._start_failure()) from error

    def _start_failure(self) -> str:
        self.process.kill()
        errors = self.process.communicate()[1].decode(errors="replace")[-2000:]
        return (
            f"the worker process {self.process.args!r} of the judge did not start within {START_LIMIT_S:.0f} s (exit status "
            f"{self.process.returncode}). It imports vgs_ray and math_verify within its memory limit: run the command by hand "
            f"to see the error, or raise memory_gib. The end of its stderr:\n{errors}"
        )

    def ask(self, pair: Pair) -> Comparison:
        """Compare one pair. The time limit starts when the worker reports that it has begun. Raises TimeoutError or _Died."""
        try:
            self.stdin.write(json.dumps(pair).encode() + b"\n")
        except OSError as error:
            raise _Died from error
        self._read(START_LIMIT_S)
        return Comparison(*self._read(self.timeout_s))

    def _read(self, limit_s: float) -> Any:
        """The next JSON line of the worker. Uses poll, since select fails for file descriptors over 1023."""
        poll, deadline = select.poll(), time.monotonic() + limit_s
        poll.register(self.stdout, select.POLLIN)
        while b"\n" not in self.buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(self.stdout.fileno(), 65536)
            if not chunk:
                raise _Died
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def kill(self) -> None:
        with self.process:  # closes the pipes and waits
            self.process.kill()  # SIGTERM has no effect during one operation on large integers


class Judge:
    """A pool of worker processes that compare answers. Thread-safe. Close it, or use it as a context manager.

    Attributes:
        judged: number of pairs that were sent to a worker. Pairs that `quick_compare` decides do not count.
    """

    def __init__(self, workers: int = 2, timeout_s: float = 5.0, memory_gib: float = 4.0) -> None:
        """Create a judge. Workers start on first use.

        Args:
            workers: maximum number of worker processes.
            timeout_s: wall-clock limit for one pair, in seconds.
            memory_gib: address space limit of one worker, in GiB.

        Raises:
            ValueError: an argument is not positive.
        """
        for name, value in (("workers", workers), ("timeout_s", timeout_s), ("memory_gib", memory_gib)):
            if not value > 0:
                raise ValueError(f"Judge: {name} is {value}, and must be over 0, such as 2 workers, 5.0 s, 4.0 GiB.")
        self.workers, self.timeout_s, self.memory_gib, self.judged = workers, timeout_s, memory_gib, 0
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()  # idle workers before new ones
        for _ in range(workers):
            self._slots.put(None)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until the workers are idle and kill them. Later calls start new workers."""
        for worker in [self._slots.get() for _ in range(self.workers)]:
            if worker:
                worker.kill()
            self._slots.put(None)

    def judge_pairs(self, pairs: Iterable[Pair]) -> dict[Pair, Comparison]:
        """Compare the answers of pairs (gold, answer), each distinct pair once.

        Returns:
            For each pair the result of `grade.compare`, or equivalent None with the reason "timeout" or "crash".

        Raises:
            RuntimeError: a worker process cannot start.
        """
        quick = {pair: grade.quick_compare(*pair) for pair in dict.fromkeys(pairs)}
        normalized = {
            pair: (pair[0], grade.normalize_answer(pair[1])) for pair, comparison in quick.items() if comparison is None
        }
        distinct = list(dict.fromkeys(normalized.values()))  # answers that differ only in formatting are compared once
        self.judged += len(distinct)
        judged: dict[Pair, Comparison] = {}
        if distinct:
            with ThreadPoolExecutor(min(self.workers, len(distinct)), thread_name_prefix="judge") as threads:
                judged = dict(zip(distinct, threads.map(self._judge, distinct), strict=True))
        return {pair: comparison or judged[normalized[pair]] for pair, comparison in quick.items()}

    def equivalent_pairs(self, pairs: Iterable[Pair]) -> dict[Pair, bool | None]:
        """Whether the two answers of each pair are equal; None if unknown."""
        return {pair: comparison.equivalent for pair, comparison in self.judge_pairs(pairs).items()}

    def equal(self, first: str, other: str) -> bool:
        """Whether two answers are known to be equal."""
        return self.equivalent_pairs([(first, other)])[first, other] is True

    def grade_all(self, responses: Iterable[tuple[str, str]]) -> list[Verdict]:
        """`grade.grade` for many (gold, text), in order, within the limits."""
        rows = [(gold, text, grade.extract_answer(text)) for gold, text in responses]
        judged = self.judge_pairs((gold, a) for gold, _, a in rows if a is not None)
        return [
            grade.without_answer(text) if a is None else grade.verdict(a, judged[gold, a]) for gold, text, a in rows
        ]

    def _judge(self, pair: Pair) -> Comparison:
        for _ in range(2):  # another process may have caused the crash (out of memory): retry once on a new worker
            worker, keep = self._slots.get(), None
            try:
                worker = worker or _Worker(self.timeout_s, self.memory_gib)
                comparison, keep = worker.ask(pair), worker
                return comparison
            except TimeoutError:
                return Comparison(None, "timeout")
            except _Died:
                continue
            finally:
                if worker and not keep:
                    worker.kill()
                self._slots.put(keep)
        return Comparison(None, "crash")


def _set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _serve(timeout_s: float, memory_gib: float, pairs: TextIO, results: TextIO) -> None:
    """The loop of a worker: for each pair, write a line when the comparison begins and a line with its result."""
    _set_limit(resource.RLIMIT_AS, int(memory_gib * 2**30))
    _set_limit(resource.RLIMIT_CORE, 0)
    grade.compare(r"\frac{1}{2}", "0.5")  # imports sympy, so that the time limit of the first pair does not include it
    print(json.dumps("ready"), file=results, flush=True)
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), 2
    )  # the parent reads stderr only during the start; a full pipe would block
    for line in pairs:
        # The kernel ends this process if the parent has died during a comparison that does not end.
        _set_limit(resource.RLIMIT_CPU, int(time.process_time() + timeout_s) + 2)
        print(json.dumps("started"), file=results, flush=True)
        print(json.dumps(grade.compare(*json.loads(line))), file=results, flush=True)


if __name__ == "__main__":
    _results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not be read as results
    _serve(float(sys.argv[1]), float(sys.argv[2]), sys.stdin, _results)
