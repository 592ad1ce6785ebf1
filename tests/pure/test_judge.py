"""The judge: limits of time and memory, replacement of workers, unknown results, use from several threads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vgs_ray.answers.costly import too_costly
from vgs_ray.answers.judge import Judge, _Died, _Worker

ENDLESS = [r"\sum_{n=1}^{99999} n^{999}", r"\sum_{n=1}^{88888} n^{998}", r"\int_0^{10} x^{x^x} dx"]
COSTLY = [r"9^{9^{9^{9}}}", r"(10^{10})!", r"\binom{10^9}{5\cdot 10^8}", "{" * 400 + "}" * 400, "2^{12345678}"]
HARMLESS = [r"2^{2004}", "2004!", r"\binom{2004}{3}", "x^{y^{z}}", r"10^{10^{3}}", r"n! + \binom{n}{2}", r"12345678"]


def _workers(judge: Judge) -> list[subprocess.Popen[bytes]]:
    return [worker.process for worker in judge._slots.queue if worker]


def test_endless_answers_are_unknown_and_the_next_are_judged() -> None:
    with Judge(workers=1, timeout_s=1.0) as judge:
        start = time.monotonic()
        verdicts = judge.judge_pairs([*(("5", answer) for answer in ENDLESS), (r"\frac{1}{2}", "0.5"), ("7", "7.5")])
        seconds = time.monotonic() - start
    for answer in ENDLESS:
        assert verdicts["5", answer].equivalent is None
        assert verdicts["5", answer].reason in ("timeout", "crash", "too_long", "undecided")
    assert verdicts[r"\frac{1}{2}", "0.5"] == (True, "math_verify")
    assert verdicts["7", "7.5"] == (False, "different")
    assert seconds < 60  # three starts of a worker on a busy machine, and three seconds of waiting


def test_costly_answers_are_unknown_without_a_worker() -> None:
    with Judge(workers=1) as judge:
        verdicts = judge.judge_pairs([("5", answer) for answer in COSTLY] + [(answer, "5") for answer in COSTLY])
        assert set(verdicts.values()) == {(None, "too_costly")}
        assert judge.judge_pairs([(COSTLY[0], COSTLY[0])]) == {(COSTLY[0], COSTLY[0]): (True, "exact")}
        assert judge.judged == 0


@pytest.mark.parametrize("answer", HARMLESS)
def test_large_but_harmless_answers_are_judged(answer: str) -> None:
    assert not too_costly(answer)


def test_other_spellings_of_an_answer_are_not_judged_again() -> None:
    spellings = [r"\sqrt{2}", r"$\sqrt{2}$", r" \sqrt{2} ", r"\sqrt{2}."]
    with Judge(workers=1) as judge:
        verdicts = judge.judge_pairs([("2^{1/2}", spelling) for spelling in spellings])
        assert {comparison.equivalent for comparison in verdicts.values()} == {True}
        assert judge.judged == 1


def test_a_table_of_exact_matches_starts_no_worker() -> None:
    with Judge() as judge:
        verdicts = judge.judge_pairs([("7", "7"), ("7", "8"), ("1,000", "1000"), ("7", "")])
        assert [comparison.equivalent for comparison in verdicts.values()] == [True, False, True, False]
        assert judge.judged == 0
        assert _workers(judge) == []


def test_each_distinct_pair_is_judged_once() -> None:
    with Judge(workers=2) as judge:
        verdicts = judge.grade_all([("0.5", rf"</think>\boxed{{\frac{{1}}{{2}}}} {i}") for i in range(20)])
        assert {(verdict.outcome, verdict.reason) for verdict in verdicts} == {("correct", "math_verify")}
        assert judge.judged == 1


def test_grade_all_keeps_the_order_and_has_all_outcomes() -> None:
    texts = [
        r"\boxed{5}",
        "</think>5",
        r"</think>\boxed{5}",
        r"</think>\boxed{5.5}",
        rf"</think>\boxed{{{ENDLESS[0]}}}",
    ]
    with Judge(workers=2, timeout_s=1.0) as judge:
        verdicts = judge.grade_all([("5", text) for text in texts])
    assert [verdict.outcome for verdict in verdicts] == ["incomplete", "incomplete", "correct", "incorrect", "unknown"]
    assert verdicts[-1].answer == ENDLESS[0]


def test_a_killed_idle_worker_is_replaced_and_its_pair_judged() -> None:
    with Judge(workers=1) as judge:
        assert judge.equivalent_pairs([("1/2", "0.5")]) == {("1/2", "0.5"): True}
        (process,) = _workers(judge)
        os.kill(process.pid, signal.SIGKILL)
        assert judge.equivalent_pairs([("1/4", "0.25")]) == {("1/4", "0.25"): True}
        assert _workers(judge)[0].pid != process.pid


def test_a_pair_that_kills_its_worker_twice_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    with Judge(workers=1) as judge:
        judge.judge_pairs([("1/2", "0.5")])
        killed: list[int] = []
        read = _Worker._read

        def died(worker: _Worker, limit_s: float) -> object:
            line = read(worker, limit_s)
            if line == "started":
                killed.append(worker.process.pid)
                os.kill(killed[-1], signal.SIGKILL)
                raise _Died
            return line

        monkeypatch.setattr(_Worker, "_read", died)
        assert judge.judge_pairs([("1/4", "0.25")])["1/4", "0.25"] == (None, "crash")
        assert len(set(killed)) == 2
        monkeypatch.undo()
        assert judge.judge_pairs([("1/4", "0.25")])["1/4", "0.25"] == (True, "math_verify")


def test_memory_is_limited() -> None:
    with Judge(workers=1, memory_gib=0.75) as judge:
        assert judge.equivalent_pairs([("1/2", "0.5")]) == {("1/2", "0.5"): True}
        limits = Path(f"/proc/{_workers(judge)[0].pid}/limits").read_text()
    assert re.search(r"Max address space +805306368 ", limits)
    assert re.search(r"Max core file size +0 ", limits)


def test_works_in_a_thread_and_is_shared_by_threads() -> None:
    with Judge(workers=2) as judge:
        results: dict[int, bool | None] = {}

        def work(i: int) -> None:
            pair = (f"{i}/8", str(i / 8))
            results[i] = judge.equivalent_pairs([pair])[pair]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == dict.fromkeys(range(1, 6), True)
        assert len(_workers(judge)) <= 2


def test_closing_kills_the_workers_and_the_judge_can_be_used_again() -> None:
    judge = Judge(workers=1)
    judge.judge_pairs([("1/2", "0.5")])
    (process,) = _workers(judge)
    judge.close()
    assert process.returncode == -signal.SIGKILL
    assert judge.equivalent_pairs([("1/2", "0.5")]) == {("1/2", "0.5"): True}
    judge.close()


def test_a_busy_worker_without_a_parent_is_ended_by_its_cpu_limit() -> None:
    command = [sys.executable, "-m", "vgs_ray.answers.judge", "0.1", "4"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as orphan:
        assert orphan.stdin is not None
        orphan.stdin.write(json.dumps(["5", ENDLESS[0]]).encode() + b"\n")
        orphan.stdin.close()
        assert orphan.wait(timeout=120) == -signal.SIGXCPU


def test_a_worker_that_cannot_start_is_an_error_with_its_stderr() -> None:
    with Judge(workers=1, memory_gib=0.001) as judge, pytest.raises(RuntimeError, match="raise memory_gib"):
        judge.judge_pairs([("1/2", "0.5")])


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"timeout_s": 0.0}, {"memory_gib": -1.0}])
def test_limits_must_be_positive(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be over 0"):
        Judge(**arguments)  # type: ignore[arg-type]
