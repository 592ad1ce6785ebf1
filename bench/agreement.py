"""Compare our verdicts with those in published traces and answer pairs: python bench/agreement.py --data FOLDER.

Out: for each file the number of pairs, the agreement, and the number of our verdicts that are unknown; then all disagreements.
For gold answers with a type but without a verdict, the share that can be parsed, by type.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vgs_ray.answers.judge import Judge
from vgs_ray.grade import extract_answer, parse_ok

SKYTHOUGHT = ("skythought_aime24_a", "skythought_aime24_b", "skythought_amc23", "skythought_math500_qwen25_math_7b")
NEMO = ("nemo_math_output_rs0", "nemo_math_output_rs1")
JUDGED = re.compile(
    r"## Student Final Answer\s*(?P<answer>.*?)\s*## Equivalence Judgement\s*(?P<verdict>TRUE|FALSE)", re.S
)


class Pair(NamedTuple):
    """An answer, and whether the file says that it equals the gold answer."""

    file: str
    gold: str
    answer: str
    theirs: bool


class Disagreement(NamedTuple):
    """A pair with our verdict (None: unknown) and its reason."""

    pair: Pair
    ours: bool | None
    reason: str


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    rows: list[dict[str, Any]] = (
        json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    )
    return rows


def pairs_of(data: Path) -> Iterator[Pair]:
    """All pairs with an answer and a verdict."""
    for name in SKYTHOUGHT:
        for row in rows_of(data / "traces" / f"{name}.jsonl"):
            yield Pair(name, str(row["gt"]), str(row["pred"][0]), bool(row["score"][0]))
    for name in NEMO:
        for row in rows_of(data / "pairs" / f"{name}.jsonl"):
            yield Pair(name, row["expected_answer"], row["predicted_answer"] or "", bool(row["symbolic_correct"]))
    for row in rows_of(data / "pairs" / "omnimath_gpteval_llama31_70b.jsonl"):
        original = json.loads(row["original_json"]) if isinstance(row["original_json"], str) else row["original_json"]
        if match := JUDGED.search(row["gen"]):
            answer = re.sub(r"^\s*None\s*$", "", match["answer"])
            yield Pair("omnimath_gpteval_llama31_70b", original["answer"], answer, match["verdict"] == "TRUE")
    for row in rows_of(data / "traces" / "mip_math_r1_distill_qwen.json"):
        answer = extract_answer(row["model_answer"]) or ""
        yield Pair("mip_math_r1_distill_qwen", row["answer"], answer, row["eval_result"] == 1)


def disagreements(pairs: list[Pair], judge: Judge) -> list[Disagreement]:
    """The pairs with different verdicts. An unknown verdict of ours counts as different."""
    verdicts = judge.judge_pairs((pair.gold, pair.answer) for pair in pairs)
    judged = ((pair, verdicts[pair.gold, pair.answer]) for pair in pairs)
    return [
        Disagreement(pair, ours.equivalent, ours.reason) for pair, ours in judged if ours.equivalent is not pair.theirs
    ]


def print_coverage(data: Path) -> None:
    readable: dict[str, list[bool]] = defaultdict(list)
    for row in rows_of(data / "pairs" / "mario_math_answer_types.json"):
        readable[row["human_type"]].append(
            all(map(parse_ok, [row["answer"]] if isinstance(row["answer"], str) else row["answer"]))
        )
    print("\ngold answers of MATH that can be parsed, by type")
    for kind, parsed in sorted(readable.items(), key=lambda item: -len(item[1])):
        print(f"{kind:<20} {sum(parsed):>5,} of {len(parsed):>5,} {sum(parsed) / len(parsed):7.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/ and traces/")
    options = parser.parse_args()
    pairs = [pair for pair in pairs_of(options.data) if pair.answer.strip()]
    with Judge(workers=2, timeout_s=5.0) as judge:
        differ = disagreements(pairs, judge)
    print(f"{'file':<36}{'pairs':>7}{'agree':>9}{'unknown':>9}")
    names = [*dict.fromkeys(pair.file for pair in pairs), "all"]
    for name in names:
        count = sum(name in (pair.file, "all") for pair in pairs)
        different = [each for each in differ if name in (each.pair.file, "all")]
        unknown = sum(each.ours is None for each in different)
        print(f"{name:<36}{count:>7,}{1 - len(different) / count:>9.2%}{unknown:>9}")
    print("\ndisagreements: file | gold | answer | theirs | ours, reason")
    for pair, ours, reason in differ:
        print(f"{pair.file} | {pair.gold[:80]} | {pair.answer[:80]} | {pair.theirs} | {ours}, {reason}")
    print_coverage(options.data)


if __name__ == "__main__":
    main()
