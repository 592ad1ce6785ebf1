"""Run stage clean on real rows: rows/s, a table of kept and dropped rows by source, and a sample for manual inspection.

`python bench/clean.py --data DATA --out FOLDER` writes the rows in the layout of OpenR1-Math to FOLDER/problems, one JSONL file
for each source, and runs the stage with the benchmarks excluded. `--sample 50` also writes 50 kept and 50 dropped rows to
FOLDER/sample.jsonl. `--rules` measures only the rules, in one process and without math-verify.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipelines import clean
from pipelines.tables.sources import benchmark_texts
from pipelines.tables.stage_table import stage_table
from vgs_ray.cleaning.contamination import index_benchmarks, overlap
from vgs_ray.cleaning.copies import FingerprintedRow, find_copies, fingerprint
from vgs_ray.cleaning.rules import REASONS, boxed_answer, check
from vgs_ray.config import Clean, Recipe

Row = dict[str, Any]
BENCHMARKS = ("aime-24", "aime-25", "hmmt-feb-24", "hmmt-feb-25", "math-500", "gsm8k-test", "imo_answerbench")


def row(source: str, problem: Any, answer: Any, solution: Any = None, kind: str | None = None) -> Row:
    return {"problem": problem, "answer": answer, "solution": solution, "source": source, "question_type": kind}


def solved(source: str, rows: list[Row]) -> Iterator[Row]:
    """Rows whose answer is only in the box of the solution."""
    return (row(source, r["problem"], boxed_answer(r["solution"]), r["solution"]) for r in rows)


def olympiad(data: Path) -> Iterator[Row]:
    names = {"English_Olympiad_Mathematics": "olympiad_en", "Chinese_Olympiad_Mathematics": "olympiad_zh"}
    names |= {"Gaokao_Maths": "gaokao_zh"}
    with zipfile.ZipFile(data / "problems/olympiadbench.zip") as archive:
        for name, source in names.items():
            for r in json.loads(archive.read(f"data/{name}.json")):
                yield row(source, r["question"], ", ".join(r["final_answer"] or []))


def choices(r: Row) -> str:
    return "\n".join(
        f"{option['aoVal']}. {option['content']}" for options in r["answer_option_list"] for option in options
    )


def real_rows(data: Path) -> Iterator[Row]:
    """All rows of DATA/problems in the layout of OpenR1-Math."""

    def load(name: str) -> Any:
        text = (data / "problems" / name).read_text()
        return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]

    yield from (row("deepscaler", r["prompt"], r["answer"]) for r in load("deepscaler_level3.json"))
    yield from solved("math_test", load("math_test_5000.jsonl"))
    for part in (1, 2):
        yield from solved("numina_amc_aime", load(f"numina_amc_aime_part{part}.json"))
    yield from solved("openthoughts", load("openthoughts_math_100.json"))
    odyssey = [next(iter(r.values())) for r in load("odyssey_math.jsonl")]
    yield from (row("odyssey", r["question"], r["answer"]) for r in odyssey)
    yield from (row("putnam", r["informal_statement"], r["informal_solution"]) for r in load("putnam_informal.json"))
    tal = load("tal_scq5k_en_test.jsonl")
    yield from (row("tal_choice", f"{r['problem']}\n{choices(r)}", r["answer_value"]) for r in tal)
    yield from olympiad(data)


def prepare(data: Path, out: Path) -> tuple[str, ...]:
    """Write the rows to `out`/problems. Returns the benchmarks to exclude."""
    (out / "problems").mkdir(parents=True, exist_ok=True)
    by_source: dict[str, list[Row]] = {}
    for r in real_rows(data):
        by_source.setdefault(r["source"], []).append(r)
    for source, rows in by_source.items():
        write(out / "problems" / f"{source}.jsonl", rows)
    with open(data / "benchmarks/imo_answerbench_v2.csv", newline="") as file:
        write(out / "imo_answerbench.jsonl", [{"problem": r["Problem"]} for r in csv.DictReader(file)])
    files = [data / "benchmarks" / f"{name}.jsonl" for name in BENCHMARKS[:-1]]
    return (*map(str, files), str(out / "imo_answerbench.jsonl"))


def write(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def table(kept: list[Row], dropped: list[Row]) -> str:
    """Rows by reason (down) and source (across)."""
    counts = Counter((r.get("reason", "kept"), r["source"]) for r in [*kept, *dropped])
    sources = sorted({source for _, source in counts})
    lines = [
        [reason, *(counts[reason, source] or "" for source in sources), sum(counts[reason, s] for s in sources)]
        for reason in ("kept", *REASONS)
    ]
    totals = [sum(counts[reason, source] for reason in ("kept", *REASONS)) for source in sources]
    return tabulate([*lines, ["all", *totals, sum(totals)]], headers=["rows", *sources, "all"], tablefmt="github")


def draw(kept: list[Row], dropped: list[Row], count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    groups = (sorted(kept, key=lambda r: r["problem_id"]), sorted(dropped, key=lambda r: r["row"]))
    return [r for rows in groups for r in rng.sample(rows, count)]


def time_rules(out: Path, exclude: tuple[str, ...]) -> str:
    """Rows/s of each step in one process. The copies are searched among as many fingerprints as OpenR1-Math has rows."""
    files = sorted((out / "problems").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    texts = [r["problem"] or "" for r in rows]
    index = index_benchmarks(text for source in exclude for text in benchmark_texts(source, source))
    fingerprint("")  # imports datasketch

    def timed(name: str, work: Callable[[], list[Any]], count: int = len(rows)) -> tuple[list[Any], list[Any]]:
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        return [name, count, round(seconds, 2), round(count / seconds)], result

    yes: Callable[..., bool] = lambda *_: True  # noqa: E731
    single, _ = timed("rules on one row", lambda: [check(r, yes, yes) for r in rows])
    prints, fingerprints = timed("fingerprints", lambda: [fingerprint(text) for text in texts])
    shared, _ = timed("8-grams", lambda: [overlap(text, index) for text in texts])
    many = [
        FingerprintedRow(
            i * len(rows) + j, "1", one._replace(text=one.text ^ i, bands=[band ^ i for band in one.bands])
        )
        for i in range(9)
        for j, one in enumerate(fingerprints)
    ]
    copied, _ = timed("copies", lambda: list(find_copies(many, Clean().near_duplicate)), len(many))
    lines = [single, prints, shared, copied]
    each = sum(line[2] / line[1] for line in lines)
    return tabulate([*lines, ["together", "", "", round(1 / each)]], headers=["step", "rows", "s", "rows/s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with problems/ and benchmarks/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contamination", type=float, default=Clean().contamination)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rules", action="store_true")
    arguments = parser.parse_args()
    exclude = prepare(arguments.data, arguments.out)
    if arguments.rules:
        print(time_rules(arguments.out, exclude))
        return
    config = Clean(
        str(arguments.out.absolute() / "problems"), exclude=exclude, contamination=arguments.contamination, workers=2
    )
    recipe = Recipe("clean", root=str(arguments.out.absolute()), run_name=f"run_{int(time.time())}", clean=config)
    clean.run(recipe)
    kept, dropped = (stage_table(recipe, stage).read().to_pylist() for stage in ("clean", "dropped"))
    print(table(kept, dropped))
    if arguments.sample:
        write(arguments.out / "sample.jsonl", draw(kept, dropped, arguments.sample, arguments.seed))


if __name__ == "__main__":
    main()
