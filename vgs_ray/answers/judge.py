"""Judge answers in processes that can be killed: one hard limit of wall-clock time for each pair, and a memory limit.

In: pairs (gold, answer). Out: a `Comparison` for each distinct pair; a pair that ran out of time or killed its worker
is unknown, never wrong. A worker is `python -m vgs_ray.answers.judge`, spoken to in JSON lines and started on first need. The
parent sets no signal handler, so a `Judge` works in any thread and inside Ray workers.
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

START_LIMIT_S = 120.0  # for the import of sympy on a busy machine


class _Died(Exception): ...  # the worker closed its end of the pipe


class _Worker:
    """One judging process. Its life: started, asked any number of times, killed."""

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
            raise RuntimeError(self._last_words()) from error

    def _last_words(self) -> str:
        self.process.kill()
        words = self.process.communicate()[1].decode(errors="replace")[-2000:]
        return (
            f"the judging process {self.process.args!r} did not start within {START_LIMIT_S:.0f} s (exit status "
            f"{self.process.returncode}). It must import vgs_ray and math_verify within its memory limit: run the "
            f"command by hand, or raise memory_gib. Its last words:\n{words}"
        )

    def ask(self, pair: Pair) -> Comparison:
        """Judge one pair; the clock starts when the worker says that it has begun. Raises TimeoutError or _Died."""
        try:
            self.stdin.write(json.dumps(pair).encode() + b"\n")
        except OSError as error:
            raise _Died from error
        self._read(START_LIMIT_S)
        return Comparison(*self._read(self.timeout_s))

    def _read(self, limit_s: float) -> Any:
        """The next line of the worker, as JSON. poll, because select fails on file numbers over 1023."""
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
            self.process.kill()  # a worker inside one big-integer operation hears nothing else


class Judge:
    """A small pool of judging processes. Safe to share between threads; close it, or use it as a context manager.

    Attributes:
        judged: pairs that were sent to a worker so far; what the quick path decides is not among them.
    """

    def __init__(self, workers: int = 2, timeout_s: float = 5.0, memory_gib: float = 4.0) -> None:
        """Start nothing yet.

        Args:
            workers: judging processes at most.
            timeout_s: wall-clock limit for one pair, in seconds.
            memory_gib: address space of one process, in GiB.

        Raises:
            ValueError: an argument that is not positive.
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
        """Kill the workers, when they are done with their pairs. Used again, the judge starts new ones."""
        for worker in [self._slots.get() for _ in range(self.workers)]:
            if worker:
                worker.kill()
            self._slots.put(None)

    def judge_pairs(self, pairs: Iterable[Pair]) -> dict[Pair, Comparison]:
        """Compare the answers of pairs (gold, answer), each distinct pair once.

        Returns:
            For each pair what `grade.compare` says, or equivalent None with reason "timeout" or "crash".

        Raises:
            RuntimeError: a judging process cannot be started.
        """
        found = {pair: grade.quick_compare(*pair) for pair in dict.fromkeys(pairs)}
        hard = {
            pair: (pair[0], grade.normalize_answer(pair[1])) for pair, comparison in found.items() if comparison is None
        }
        different = list(dict.fromkeys(hard.values()))  # other spellings of an answer are not judged again
        self.judged += len(different)
        judged: dict[Pair, Comparison] = {}
        if different:
            with ThreadPoolExecutor(min(self.workers, len(different)), thread_name_prefix="judge") as threads:
                judged = dict(zip(different, threads.map(self._judge, different), strict=True))
        return {pair: comparison or judged[hard[pair]] for pair, comparison in found.items()}

    def equivalent_pairs(self, pairs: Iterable[Pair]) -> dict[Pair, bool | None]:
        """Whether the two answers of each pair are equal; None where nobody knows."""
        return {pair: comparison.equivalent for pair, comparison in self.judge_pairs(pairs).items()}

    def grade_all(self, responses: Iterable[tuple[str, str]]) -> list[Verdict]:
        """`grade.grade` for many (gold, text), in order, within the limits."""
        rows = [(gold, text, grade.extract_answer(text)) for gold, text in responses]
        found = self.judge_pairs((gold, a) for gold, _, a in rows if a is not None)
        return [grade.without_answer(text) if a is None else grade.verdict(a, found[gold, a]) for gold, text, a in rows]

    def _judge(self, pair: Pair) -> Comparison:
        for _ in range(2):  # a crash may be a neighbour's doing (out of memory): once more, on a fresh worker
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


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _serve(timeout_s: float, memory_gib: float, pairs: TextIO, results: TextIO) -> None:
    """The worker: read pairs until the pipe ends; write one line when it begins and one when it is done."""
    _limit(resource.RLIMIT_AS, int(memory_gib * 2**30))
    _limit(resource.RLIMIT_CORE, 0)
    grade.compare(r"\frac{1}{2}", "0.5")  # imports sympy before the first clock starts
    print(json.dumps("ready"), file=results, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads the errors from here on, and a full pipe would block
    for line in pairs:
        # Should the parent die while this process is stuck, the kernel ends it.
        _limit(resource.RLIMIT_CPU, int(time.process_time() + timeout_s) + 2)
        print(json.dumps("started"), file=results, flush=True)
        print(json.dumps(grade.compare(*json.loads(line))), file=results, flush=True)


if __name__ == "__main__":
    _results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a print in some library must not look like a result
    _serve(float(sys.argv[1]), float(sys.argv[2]), sys.stdin, _results)
