"""Compare the speed of grading distinct pairs with grading row by row: python bench/verify.py --golds FOLDER [--rows 20000].

The rows are 20,000 answers to gold answers of real benchmarks, 56 for each problem; wrong answers often agree. Grading row by row
parses both strings of each row and compares them in both orders with a time limit of 1 s, as is usual. It is timed on a random
subset. The benchmark is then repeated with 200 hostile answers among the rows. Out: rows/s, their ratio, disagreements, and the
results for hostile answers.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections import Counter
from pathlib import Path

from vgs_ray.answers.judge import Judge, Pair
from vgs_ray.grade import Comparison

TRACES = 56
WORKERS = 2


def golds_of(folder: Path) -> list[str]:
    """Gold answers of all benchmarks in a folder: JSON lines with `answer`, and CSV files with `Short Answer`."""
    golds = [str(json.loads(line)["answer"]) for file in sorted(folder.glob("*.jsonl")) if not file.name.startswith("gsm8k")
             for line in file.open()]  # fmt: skip
    for file in sorted(folder.glob("*.csv")):
        with file.open(newline="") as rows:
            golds += [row["Short Answer"] for row in csv.DictReader(rows)]
    return sorted(set(filter(None, golds)))


def respelled(answer: str, draw: random.Random) -> str:
    """The same answer as another trace would write it."""
    spellings = [answer, f"${answer}$", f" {answer} ", answer.replace("frac", "dfrac"), f"\\text{{ }}{answer}"]
    return draw.choice(spellings)


def rows_of(golds: list[str], rows: int, draw: random.Random) -> list[Pair]:
    """Pairs (gold, answer): 40% are correct, and each wrong answer is twice as frequent as the next."""
    pairs = []
    while len(pairs) < rows:
        gold = draw.choice(golds)
        wrong = draw.sample(golds, 8)
        for _ in range(TRACES):
            rank = min(int(draw.expovariate(0.7)), len(wrong) - 1)
            pairs.append((gold, respelled(gold if draw.random() < 0.4 else wrong[rank], draw)))
    return pairs[:rows]


def hostile_answers(draw: random.Random) -> list[str]:
    """200 answers for which graders hang, crash or lose rows."""

    def one(number: int) -> str:
        size = draw.randrange(10**6, 10**7)
        kinds = [
            "^{".join(["9"] * (4 + number % 5)) + "}" * (3 + number % 5),
            f"({size})!", f"\\binom{{{size}}}{{{size // 2}}}", "{" * 3000 + str(number) + "}" * 3000, "7" * 10**6,
            f"3\x00{number}", f"\u202e{number}\u202c", "\\sqrt{" * 200 + "2" + "}" * 200, f"{size}^{{{size}}}",
            f"((({number}!)!)!)!", "\\frac{1}{" * 150 + "2" + "}" * 150, f"\\int_0^{{{size}}} x^{{x^x}} dx",
            "(" * 500 + "x" + ")" * 500, f"\\sum_{{n=1}}^{{{size}}} n^{{{size}}}", "\\left(" * 300, f"10^{{10^{{10^{number}}}}}",
        ]  # fmt: skip
        return kinds[number % len(kinds)]

    return [one(number) for number in range(200)]


def row_by_row(pairs: list[Pair]) -> list[bool]:
    """The usual way of grading: no result of a row is reused for another row."""
    from math_verify import parse, verify

    results = []
    for gold, answer in pairs:
        both = [parse(f"\\boxed{{{text}}}", parsing_timeout=1) for text in (gold, answer)]
        results.append(verify(*both, timeout_seconds=1) or verify(*reversed(both), timeout_seconds=1))
    return results


def by_pairs(pairs: list[Pair]) -> tuple[dict[Pair, Comparison], float]:
    """The comparisons, and the seconds without the start of the worker processes."""
    with Judge(workers=WORKERS, timeout_s=5.0) as judge:
        judge.judge_pairs([(f"x+{i}", f"{i}+x") for i in range(4 * WORKERS)])  # starts the workers
        began = time.perf_counter()
        return judge.judge_pairs(pairs), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--subset", type=int, default=1500, help="rows that are graded row by row")
    parser.add_argument("--golds", type=Path, required=True, help="folder of benchmarks")
    options = parser.parse_args()
    draw = random.Random(0)
    pairs = rows_of(golds_of(options.golds), options.rows, draw)
    compared, seconds = by_pairs(pairs)
    subset = draw.sample(pairs, options.subset)
    began = time.perf_counter()
    usual = row_by_row(subset)
    slow = (time.perf_counter() - began) / len(subset)
    ratio = slow * len(pairs) / seconds
    print(
        f"{len(pairs):,} rows, {len(compared):,} distinct pairs: {len(pairs) / seconds:,.0f} rows/s with {WORKERS} processes"
    )
    print(
        f"row by row, both ways, 1 process, {len(subset):,} rows: {1 / slow:,.0f} rows/s; by pairs is {ratio:.1f} times as fast"
    )
    different = {
        pair: theirs
        for pair, theirs in zip(subset, usual, strict=True)
        if compared[pair].equivalent not in (None, theirs)
    }
    print(f"{len(different)} of {len(set(subset)):,} pairs of the subset have different verdicts")
    for (gold, answer), theirs in list(different.items())[:20]:
        print(f"  gold {gold!r:.60}  answer {answer!r:.60}  by pairs {not theirs}, row by row {theirs}")
    hostile = [(gold, answer) for (gold, _), answer in zip(draw.sample(pairs, 200), hostile_answers(draw), strict=True)]
    mixed = [*pairs, *hostile]
    draw.shuffle(mixed)
    compared, slower = by_pairs(mixed)
    reasons = Counter(f"{compared[pair].reason} ({compared[pair].equivalent})" for pair in hostile)
    print(
        f"with 200 hostile answers: {slower / seconds:.2f} times as long, {sum(pair not in compared for pair in mixed)} rows lost"
    )
    print(f"results for hostile answers: {dict(reasons)}")


if __name__ == "__main__":
    main()
