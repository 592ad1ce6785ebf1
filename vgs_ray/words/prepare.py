"""Word problems for the recipe `words`: the benchmark, the problems of the value model, and solutions to fine-tune a policy on.

`python -m vgs_ray.words.prepare --mawps FILE... --asdiv FILE --svamp FILE --gsm8k FILE --out FOLDER` writes `benchmark.jsonl`,
`problems.jsonl` and `tuning.jsonl`, with the columns problem, answer, solution and source, and prints what became of all rows.
Copies are dropped, and so are problems that share an 8-gram with the benchmark, by the functions of stage clean. `problems.jsonl`
and `tuning.jsonl` also have variants of their problems of several steps, with other numbers, and `tuning.jsonl` has calculations
without a story.
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
SPLITS = {
    "benchmark": ("benchmark",),
    "problems": ("problems", "problems variant"),
    "tuning": ("tuning", "tuning variant"),
}
"""The files, and the places of the problems in each."""


class Assigned(NamedTuple):
    """A problem and its place: a split, the variants of a split, or the reason why it is in none."""

    problem: WordProblem
    place: str


def assign(found: Sequence[WordProblem], benchmark: int, problems: int) -> list[Assigned]:
    """Assign each problem to a split, by a hash of its text.

    Args:
        found: all problems.
        benchmark: number of problems of the benchmark: such with two steps or more, not of GSM8K, which has a benchmark.
        problems: most problems for the value model: half of the other ones of this kind. The policy isn't tuned on them, because
            it would solve them more often than new ones. All other problems are for tuning.
    """
    places: dict[int, str] = {copy.row: copy.reason for copy in find_copies(_fingerprints(found), Clean.near_duplicate)}
    places |= {at: "too_many_steps" for at, each in enumerate(found) if len(each.steps) > MOST_STEPS}
    several = [at for at in _by_key(found) if at not in places and _like_benchmark(found[at])]
    index = index_benchmarks((str(at), found[at].problem) for at in several[:benchmark])
    places |= dict.fromkeys(several[:benchmark], "benchmark")
    shares = (at for at, each in enumerate(found) if at not in places and overlap(each.problem, index))
    places |= dict.fromkeys(shares, "contaminated")
    places |= dict.fromkeys([at for at in several if at not in places][::2][:problems], "problems")
    return [Assigned(each, places.get(at, "tuning")) for at, each in enumerate(found)]


def variants(assigned: Sequence[Assigned], place: str, count: int) -> list[Assigned]:
    """At most `count` variants, with other numbers, of each problem of a split that is like those of the benchmark.

    Most problems for tuning have one step, and most of the others are of GSM8K, whose problems are longer and harder. A policy
    that is tuned on as many variants of these solves fewer problems of the benchmark. No variant shares an 8-gram with it.
    """
    index = index_benchmarks(("", each.problem.problem) for each in assigned if each.place == "benchmark")
    found = []
    for problem in (each.problem for each in assigned if each.place == place and _like_benchmark(each.problem)):
        for at in range(count):
            variant = with_other_numbers(problem, random.Random(stable_seed(at, problem_id(problem.problem))))
            if variant and not overlap(variant.problem, index):
                found.append(Assigned(variant, f"{place} variant"))
    return found


def _like_benchmark(problem: WordProblem) -> bool:
    return len(problem.steps) > 1 and problem.source != "gsm8k"


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
    parser.add_argument("--problems", type=int, default=1000, help="most problems of the value model (default 1000)")
    parser.add_argument("--problem-variants", type=int, default=4, help="of each of these (default 4)")
    parser.add_argument("--tuning-variants", type=int, default=16, help="of each such problem for tuning (default 16)")
    parser.add_argument("--calculations", type=int, default=3500, help=f"rows of {PER_ROW} calculations (default 3500)")
    options = parser.parse_args()
    sources = [(kind, source) for kind in LAYOUTS for source in getattr(options, kind)]
    try:
        found = [problem for kind, source in sources for problem in read_problems(kind, source)]
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    assigned = assign(found, options.benchmark, options.problems)
    assigned += [
        *variants(assigned, "problems", options.problem_variants),
        *variants(assigned, "tuning", options.tuning_variants),
    ]
    write(assigned, calculation_rows(options.calculations), options.out)
    print(table(assigned))


if __name__ == "__main__":
    main()
