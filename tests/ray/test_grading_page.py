"""docs/grading.md is correct: its verdicts, its reasons, and the agreement with published verdicts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from agreement import disagreements, pairs_of
from real_data import DATA

from vgs_ray.answers.judge import Judge
from vgs_ray.grade import compare

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grading.md").read_text()
ANSWERS = re.findall(
    r"^\| `(.+?)` \| `(.+?)` \| (equal|different|unknown) \| ", PAGE.partition("## Agreement")[0], re.M
)
JUDGED = (
    "vgs_ray/grade.py",
    "vgs_ray/answers/compare.py",
    "vgs_ray/answers/judge.py",
    "vgs_ray/labels/verified_rows.py",
)


def test_the_page_has_its_table() -> None:
    assert len(ANSWERS) > 50
    assert {verdict for _, _, verdict in ANSWERS} == {"equal", "different", "unknown"}


@pytest.mark.parametrize(("gold", "answer", "verdict"), ANSWERS)
def test_each_verdict_of_the_page(gold: str, answer: str, verdict: str) -> None:
    assert compare(gold, answer).equivalent is {"equal": True, "different": False, "unknown": None}[verdict]


def test_every_reason_is_on_the_page_and_no_other() -> None:
    emitted: set[str] = set()
    for file in JUDGED:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("Verdict", "Comparison")
                and node.args[1:]
            ):
                texts = [leaf.value for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Constant)]
                emitted |= {text for text in texts if isinstance(text, str)}
    explained = set(re.findall(r"^\| (?:correct|incorrect|incomplete|unknown) \| `(\w+)`", PAGE, re.M))
    assert emitted == explained


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real answer pairs: {DATA} is absent")
def test_agreement_is_as_the_page_says() -> None:
    pairs = [pair for pair in pairs_of(DATA) if pair.answer.strip()]
    with Judge(workers=2, timeout_s=60.0) as judge:
        differ = disagreements(pairs, judge)
    listed = re.findall(r"^\| `(.+?)` \| .+? \| (equal|different) \| (?:equal|different|unknown)\b", PAGE, re.M)
    assert {(each.pair.gold, "equal" if each.pair.theirs else "different") for each in differ} == set(listed)
    of_all = re.search(r"^\| all \| (\d+) \| ([\d.]+)% \|", PAGE, re.M)
    assert of_all is not None
    assert (len(pairs), f"{1 - len(differ) / len(pairs):.2%}") == (int(of_all[1]), f"{of_all[2]}%")
