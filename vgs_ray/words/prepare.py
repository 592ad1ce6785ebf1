"""Word problems for the recipe `words`: the benchmark, the problems of the value model, and solutions to fine-tune a policy on.

`python -m vgs_ray.words.prepare --mawps FILE... --asdiv FILE --svamp FILE --gsm8k FILE --out FOLDER` writes `benchmark.jsonl`,
`problems.jsonl` and `tuning.jsonl`, with the columns problem, answer, solution and source, and prints what became of all rows.
Copies are dropped, and so are problems that share an 8-gram with the benchmark, by the functions of stage clean. `tuning.jsonl`
also has variants of its problems of several steps, with other numbers, and calculations without a story.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from vgs_ray.cleaning.contamination import index_benchmarks, overlap
from vgs_ray.cleaning.copies import FingerprintedRow, find_copies, fingerprint
from vgs_ray.config import Clean
from vgs_ray.data.files import write_atomically
from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.data.splits import split_key
from vgs_ray.data.storage import AnyPath, storage_path
from vgs_ray.errors import UserError
from vgs_ray.grade import grade
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.words.calculations import PER_ROW, calculation_rows
from vgs_ray.words.solutions import solution
from vgs_ray.words.sources import LAYOUTS, WordProblem, read_problems
from vgs_ray.words.variants import with_other_numbers

MOST_STEPS = 3
"""A policy of 135M parameters solves few problems with more steps."""
VARIANT = "variant"
SPLITS = {"benchmark": ("benchmark",), "problems": ("problems",), "tuning": ("tuning", VARIANT)}
"""The files, and the places of the problems in each."""


class Assigned(NamedTuple):
    """A problem and its split, `variant`, or the reason why it is in no split."""

    problem: WordProblem
    place: str


def assign(found: Sequence[WordProblem], benchmark: int, problems: int) -> list[Assigned]:
    """Assign each problem to a split, by a hash of its text.

    Args:
        found: all problems.
        benchmark: number of problems of the benchmark: such with two steps or more, not of GSM8K, which has a benchmark.
        problems: number of problems with two steps or more for the value model: half of those that are not of GSM8K, then such
            of GSM8K. The policy isn't tuned on them, because it would solve them more often than new ones. All other problems
            are for tuning.
    """
    places: dict[int, str] = {copy.row: copy.reason for copy in find_copies(_fingerprints(found), Clean.near_duplicate)}
    places |= {at: "too_many_steps" for at, each in enumerate(found) if len(each.steps) > MOST_STEPS}
    several = [at for at in _by_key(found) if at not in places and len(found[at].steps) > 1]
    chosen = [at for at in several if found[at].source != "gsm8k"][:benchmark]
    index = index_benchmarks((str(at), found[at].problem) for at in chosen)
    places |= dict.fromkeys(chosen, "benchmark")
    shares = (at for at, each in enumerate(found) if at not in places and overlap(each.problem, index))
    places |= dict.fromkeys(shares, "contaminated")
    left = [at for at in several if at not in places]
    like_benchmark = [at for at in left if found[at].source != "gsm8k"]
    of_gsm8k = [at for at in left if found[at].source == "gsm8k"]
    chosen = [*like_benchmark[::2], *of_gsm8k][:problems]
    places |= dict.fromkeys(chosen, "problems")
    return [Assigned(each, places.get(at, "tuning")) for at, each in enumerate(found)]


def variants(assigned: Sequence[Assigned], count: int, count_gsm8k: int) -> list[Assigned]:
    """At most `count` variants, with other numbers, of each problem for tuning that has several steps.

    GSM8K, whose problems are long and unlike those of the benchmark, has most problems of several steps: `count_gsm8k` of each.
    Most problems for tuning have one step. A policy that is tuned on as many variants of these ends problems of the benchmark
    after one step. No variant shares an 8-gram with the benchmark.
    """
    index = index_benchmarks(("", each.problem.problem) for each in assigned if each.place == "benchmark")
    found = []
    for problem in (each.problem for each in assigned if each.place == "tuning" and len(each.problem.steps) > 1):
        for at in range(count_gsm8k if problem.source == "gsm8k" else count):
            variant = with_other_numbers(problem, random.Random(stable_seed(at, problem_id(problem.problem))))
            if variant and not overlap(variant.problem, index):
                found.append(Assigned(variant, VARIANT))
    return found


def _fingerprints(found: Sequence[WordProblem]) -> Iterable[FingerprintedRow]:
    return (FingerprintedRow(at, each.answer, fingerprint(each.problem)) for at, each in enumerate(found))


def _by_key(found: Sequence[WordProblem]) -> list[int]:
    return sorted(range(len(found)), key=lambda at: split_key(problem_id(found[at].problem)))


def rows_of(assigned: Sequence[Assigned], split: str) -> list[dict[str, str]]:
    """The rows of a split in an order drawn by a hash, each with a solution that the judge has found correct.

    Raises:
        ValueError: a solution is not correct.
    """
    rows = []
    chosen = [each.problem for each in assigned if each.place in SPLITS[split]]
    for problem in sorted(chosen, key=lambda each: split_key(problem_id(each.problem))):
        text = solution(problem.problem, problem.steps)
        if (verdict := grade(problem.answer, END_OF_THOUGHT + text)).outcome != "correct":
            raise ValueError(f"the solution of {problem.problem!r} is {verdict.outcome} ({verdict.reason}): {text}")
        rows.append({"problem": problem.problem, "answer": problem.answer, "solution": text, "source": problem.source})
    return rows


def table(assigned: Sequence[Assigned]) -> str:
    """The number of rows by source and by what became of them."""
    counts = Counter((each.problem.source, each.place) for each in assigned)
    sources = list(dict.fromkeys(source for source, _ in counts))
    usual = [place for places in SPLITS.values() for place in places]
    places = [*usual, *sorted({place for _, place in counts} - set(usual))]
    numbers = [[counts[source, place] for source in sources] for place in places]
    lines = [[place, *row, sum(row)] for place, row in zip(places, numbers, strict=True)]
    return tabulate(lines, headers=["", *sources, "all"])


def write(assigned: Sequence[Assigned], calculations: Sequence[dict[str, str]], folder: AnyPath) -> None:
    """Write a file of JSON lines for each split; `calculations` are more rows for tuning."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = rows_of(assigned, split) + list(calculations if split == "tuning" else ())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(folder / f"{split}.jsonl", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, layout in LAYOUTS.items():
        columns = ", ".join(layout.columns)
        parser.add_argument(f"--{kind}", nargs="*", default=[], metavar="SOURCE", help=f"columns {columns}")
    parser.add_argument("--out", type=storage_path, required=True)
    parser.add_argument("--benchmark", type=int, default=300, help="problems of the benchmark (default 300)")
    parser.add_argument("--problems", type=int, default=1200, help="problems of the value model (default 1200)")
    parser.add_argument("--variants", type=int, default=16, help="of each problem of several steps (default 16)")
    parser.add_argument("--variants-gsm8k", type=int, default=2, help="the same for problems of GSM8K (default 2)")
    parser.add_argument("--calculations", type=int, default=6000, help=f"rows of {PER_ROW} calculations (default 6000)")
    options = parser.parse_args()
    sources = [(kind, source) for kind in LAYOUTS for source in getattr(options, kind)]
    try:
        found = [problem for kind, source in sources for problem in read_problems(kind, source)]
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    assigned = assign(found, options.benchmark, options.problems)
    assigned += variants(assigned, options.variants, options.variants_gsm8k)
    write(assigned, calculation_rows(options.calculations), options.out)
    print(table(assigned))


if __name__ == "__main__":
    main()
