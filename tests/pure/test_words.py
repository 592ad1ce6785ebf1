"""Word problems: formulas, solutions, the splits, and the real data sets."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from vgs_ray.cleaning.contamination import index_benchmarks, overlap
from vgs_ray.errors import UserError
from vgs_ray.grade import grade
from vgs_ray.words.calculations import PER_ROW, calculation_rows
from vgs_ray.words.formulas import apply, find_formula, steps_of
from vgs_ray.words.prepare import assign, rows_of, variants
from vgs_ray.words.solutions import solution
from vgs_ray.words.sources import WordProblem, read_problems
from vgs_ray.words.variants import with_other_numbers

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "words").is_dir(), reason=f"{DATA} is not here: real problems are not copied into the project"
)


@pytest.mark.parametrize(
    ("formula", "steps"),
    [
        ("7+2=9", ["7 + 2 = 9"]),
        ("( 290.0 / 2.0 )", ["290 / 2 = 145"]),
        ("(12+10)+(12+10)=44", ["12 + 10 = 22", "12 + 10 = 22", "22 + 22 = 44"]),
        ("2 (dime)*10 (cent/dime) + 5 (cent)=25 (cents)", ["2 * 10 = 20", "20 + 5 = 25"]),
        ("$1.5*3", ["1.5 * 3 = 4.5"]),
    ],
)
def test_a_formula_becomes_steps(formula: str, steps: list[str]) -> None:
    found = steps_of(formula)
    assert found is not None
    assert [str(step) for step in found] == steps


@pytest.mark.parametrize("formula", ["x+18-15=9", "LCM[20,10]=20", "1/3*9", "3-5", "4/0", "2**3", "", "15:18=5:6"])
def test_other_formulas_are_left_out(formula: str) -> None:
    assert steps_of(formula) is None


@pytest.mark.parametrize(
    ("problem", "answer", "formula"),
    [
        ("Debby had 32 pieces and her sister 42. They ate 35. How many are left?", 39, "((32 + 42) - 35)"),
        ("There were 28 bales. There are now 54. How many did he store?", 26, "(54 - 28)"),
        ("A bin had 50 oranges. They threw 40 away and put 24 in.", 34, "((50 - 40) + 24)"),
        ("2 boxes and 2 boxes", 4, None),  # a sum or a product
        ("3 apples", 3, None),
        ("1,000 of 10 packs", 100, "(1000 / 10)"),
        ("1 and 2 and 3 and 4", 10, None),
    ],
)
def test_a_formula_is_found_if_only_one_gives_the_answer(problem: str, answer: int, formula: str | None) -> None:
    assert find_formula(problem, Fraction(answer)) == formula


def _problem(text: str, formula: str, source: str = "mawps") -> WordProblem:
    steps = tuple(steps_of(formula) or ())
    return WordProblem(source, text, str(steps[-1].result), steps)


def test_a_solution_is_graded_correct_and_its_wording_varies() -> None:
    problems = [_problem(f"Problem {number}", f"({number} + 3) * 2") for number in range(40)]
    texts = [solution(each.problem, each.steps) for each in problems]
    for each, text in zip(problems, texts, strict=True):
        assert grade(each.answer, f"</think>{text}").outcome == "correct"
        assert text.count("\n") == 2
    assert len({text.split()[0] for text in texts}) >= 3
    assert texts == [solution(each.problem, each.steps) for each in problems]
    assert texts != [solution(each.problem, each.steps, seed=1) for each in problems]


def _story(name: str, number: int, tail: str = "") -> str:
    return f"{name} has {number} red marbles in a {name} box and finds 3 more of the {name} kind, then sells 2. {tail}"


def test_splits_share_no_problem_and_no_8_gram() -> None:
    found = [_problem(_story(f"name{at}", 10 + at), f"{10 + at} + 3 - 2") for at in range(60)]
    found += [_problem(f"one step {at}", f"{at} + 1") for at in range(10)]
    found += [_problem(f"school {at}", f"{at} + 1 + 2", "gsm8k") for at in range(10)]
    found += [_problem(f"long {at}", f"{at} + 1 + 2 + 3 + 4") for at in range(3)]
    found += [_problem(each.problem.upper(), "1 + 1") for each in found[:2]]
    copied = [_problem(_story(f"name{at}", 500, "Say how many."), "500 + 3 - 2") for at in range(60)]
    assigned = assign([*found, *copied], benchmark=20, problems=30)
    places = {place: [each.problem for each in assigned if each.place == place] for _, place in assigned}
    left = 60 + 60 - 20 - len(places["contaminated"])
    chosen = min(30, (left + 1) // 2)
    assert {place: len(each) for place, each in places.items() if place != "contaminated"} == {
        "benchmark": 20, "problems": chosen, "tuning": left - chosen + 10 + 10, "too_many_steps": 3, "duplicate": 2,
    }  # fmt: skip
    assert all(len(each.steps) > 1 and each.source != "gsm8k" for each in (*places["benchmark"], *places["problems"]))
    assert len(places["contaminated"]) >= 20  # the other versions of the benchmark's stories
    index = index_benchmarks((each.problem, each.problem) for each in places["benchmark"])
    assert not [each for place in ("problems", "tuning") for each in places[place] if overlap(each.problem, index)]


def test_a_variant_has_other_numbers_and_the_same_signs() -> None:
    text = "A box with 7 rows has 12 eggs. 3 of the 12 boxes fell. 1,200 people ate 40% of 52 eggs at 5 dollars."
    problem = _problem(text, "52 * 5 - 40 + 1")
    variant = with_other_numbers(problem, random.Random(0))
    assert variant is not None
    assert [step.sign for step in variant.steps] == ["*", "-", "+"]
    changed = re.fullmatch(text.replace("52", r"(\d+)").replace("at 5", r"at (\d+)"), variant.problem)
    assert changed is not None
    eggs, price = map(int, changed.groups())
    assert (eggs, price) != (52, 5)
    assert variant.answer == str(eggs * price - 40 + 1)
    assert grade(variant.answer, f"</think>{solution(variant.problem, variant.steps)}").outcome == "correct"


@pytest.mark.parametrize(
    ("text", "formula"),
    [("7 and 7", "7 + 7"), ("at 5:30 he ate 4 of 9", "9 - 4"), ("no numbers", "2 + 3"), ("1 and 1.5", "1.5 + 1")],
)
def test_a_problem_whose_numbers_are_ambiguous_has_no_variant(text: str, formula: str) -> None:
    assert with_other_numbers(_problem(text, formula), random.Random(0)) is None


@pytest.mark.parametrize("split", ["problems", "tuning"])
def test_variants_are_in_the_split_of_their_problem_and_share_no_8_gram_with_the_benchmark(split: str) -> None:
    found = [_problem(_story(f"name{at}", 10 + at), f"{10 + at} + 3 - 2") for at in range(40)]
    assigned = assign(found, benchmark=10, problems=10)
    more = variants(assigned, split, 2)
    varied = {each.problem.problem for each in assigned if each.place == split}
    assert 0 < len(more) <= 2 * len(varied)
    assert {re.sub(r"\d+", "", each.problem.problem) for each in more} <= {re.sub(r"\d+", "", text) for text in varied}
    index = index_benchmarks(
        (each.problem.problem, each.problem.problem) for each in assigned if each.place == "benchmark"
    )
    assert not [each for each in more if overlap(each.problem.problem, index)]
    assert len(rows_of([*assigned, *more], split)) == len(varied) + len(more)


def test_problems_of_one_step_and_of_gsm8k_have_no_variants() -> None:
    found = [_problem(_story(f"name{at}", 10 + at), f"{10 + at} + 3") for at in range(5)]
    found += [_problem(_story(f"school{at}", 10 + at), f"{10 + at} + 3 - 2", "gsm8k") for at in range(5)]
    assert not variants(assign(found, benchmark=0, problems=0), "tuning", 2)


def test_calculations_are_right_and_of_all_signs() -> None:
    rows = calculation_rows(50)
    lines = [line for row in rows for line in row["solution"].splitlines()]
    assert len(lines) == 50 * PER_ROW
    signs = set()
    for line in lines:
        left, sign, right, _, result = line.rstrip(".").split()
        signs.add(sign)
        assert apply(Fraction(left), sign, Fraction(right)) == int(result)
    assert signs == set("+-*/")
    for row in rows:
        wanted = row["problem"].removeprefix("Calculate: ").split(", ")
        assert [line.partition(" =")[0] for line in row["solution"].splitlines()] == wanted
        assert row["solution"].endswith(f"= {row['answer']}.")
    assert rows == calculation_rows(50) != calculation_rows(50, seed=1)


def test_a_wrong_solution_is_refused() -> None:
    wrong = _problem("a problem", "1 + 1")._replace(answer="3")
    with pytest.raises(ValueError, match="'a problem' is incorrect"):
        rows_of(assign([wrong], 1, 1), "tuning")


def test_the_command_writes_the_splits(tmp_path: Path) -> None:
    rows = [
        {"question": f"Ann has {n} pens.", "answer": f"so <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"} for n in range(5)
    ]
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "vgs_ray.words.prepare",
        "--gsm8k",
        tmp_path / "gsm8k.jsonl",
        "--out",
        tmp_path / "out",
        "--calculations",
        "3",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert "tuning" in done.stdout
    tuning = [json.loads(line) for line in (tmp_path / "out" / "tuning.jsonl").read_text().splitlines()]
    assert {"1", "2", "3", "4", "5"} <= {row["answer"] for row in tuning}
    assert [row["source"] for row in tuning][-4:] == ["gsm8k", *3 * ["calculations"]]
    assert {"problem", "answer", "solution", "source"} == tuning[0].keys()


@pytest.mark.parametrize(
    ("source", "named"),
    [("question", "has no column body, formula .*found: question, answer"), ("", "nowhere.jsonl does not exist")],
)
def test_a_source_that_can_not_be_read_stops_with_one_line(source: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.jsonl"
    if source:
        file.write_text(json.dumps({source: "a problem", "answer": None}) + "\n")
    with pytest.raises(UserError, match=named):
        list(read_problems("asdiv", str(file)))


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("asdiv", {"body": None, "question": "2 and 3?", "answer": None, "formula": "2+3"}),
        ("svamp", {"Body": "", "Question": "2 and 3?", "Equation": None, "Answer": "5"}),
        ("mawps", {"input": "2 and 3", "target": None}),
        ("gsm8k", {"question": "2 and 3?", "answer": "no calculation\n#### 5"}),
    ],
)
def test_rows_with_gaps_are_left_out(kind: str, row: dict[str, str | None], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert list(read_problems(kind, str(tmp_path / "rows.jsonl"))) == []


@needs_data
def test_real_problems_have_correct_solutions_and_a_clean_benchmark() -> None:
    sources = [("mawps", f"words/mawps-{part}.jsonl") for part in ("addsub", "singleop", "singleeq", "multiarith")]
    sources += [
        ("asdiv", "words/asdiv.jsonl"),
        ("svamp", "words/svamp.jsonl"),
        ("gsm8k", "benchmarks/gsm8k-train.jsonl"),
    ]
    found = [each for kind, file in sources for each in read_problems(kind, str(DATA / file))]
    assigned = assign(found, benchmark=300, problems=1200)
    counts = {
        split: len(rows_of(assigned, split)) for split in ("benchmark", "problems", "tuning")
    }  # grades each solution
    assert counts["benchmark"] == 300
    assert counts["problems"] > 200
    assert counts["tuning"] > 5000
    assert all(len(each.problem.steps) >= 2 for each in assigned if each.place == "benchmark")
