r"""Rows of the sandbox in the layout of OpenR1-Math, with defects that stage clean has to remove.

In: a split, a count and a seed. Out: dicts with `problem`, `solution` (ends with `\boxed{answer}`), `answer` and the other
columns of OpenR1-Math. Only train rows have defects. A row does not tell its defect; `labelled_rows` does.
"""

import random
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from vgs_ray.sandbox.world import MODULUS, SIGNS, Problem, Split, draw_problems

Row = dict[str, Any]

DEFECT_SHARE = 0.12
BENCHMARK_SEED = 0  # of the benchmark that contaminated train rows are copied from; the default of `benchmark_rows`
CONTAMINATION_POOL = 100


def _row(problem: str, solution: str, answer: str, rng: random.Random, kind: str = "math-word-problem") -> Row:
    """A row with all columns of OpenR1-Math. Those for generations are empty."""
    return {
        "problem": problem,
        "solution": solution,
        "answer": answer,
        "problem_type": "Number Theory",
        "question_type": kind,
        "source": "vgs_sandbox",
        "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "is_reasoning_complete": [],
        "generations": [],
        "correctness_math_verify": [],
        "correctness_llama": [],
        "finish_reasons": [],
        "correctness_count": 0,
        "messages": [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}],
    }


def _working(problem: Problem) -> str:
    """The correct calculation without its conclusion."""
    before = [problem.start, *problem.values]
    return "\n".join(
        f"{number}) {before[number - 1]}{SIGNS[verb]}{operand}={before[number]}"
        for number, (verb, operand) in enumerate(problem.steps, 1)
    )


def _conclusion(answer: str) -> str:
    return rf"The answer is \boxed{{{answer}}}"


def clean_row(problem: Problem, rng: random.Random) -> Row:
    """The row of a problem without defects."""
    return _row(problem.text, f"{_working(problem)}\n{_conclusion(problem.answer)}", problem.answer, rng)


def _wrong(problem: Problem) -> str:
    """An answer that differs from the correct one for any divisor."""
    return str(MODULUS + problem.start)


def _empty_problem(problem: Problem, rng: random.Random) -> Row:
    row = clean_row(problem, rng)
    return _row(rng.choice(["", "  \n"]), row["solution"], problem.answer, rng)


def _no_answer(problem: Problem, rng: random.Random) -> Row:
    return clean_row(problem, rng) | {"answer": rng.choice(["", None])}


def _no_box(problem: Problem, rng: random.Random) -> Row:
    return _row(problem.text, f"{_working(problem)}\nThe answer is {problem.answer}", problem.answer, rng)


def _two_boxes(problem: Problem, rng: random.Random) -> Row:
    other = rf"One finds \boxed{{{_wrong(problem)}}} or, with more care:"
    solution = f"{other}\n{_working(problem)}\n{_conclusion(problem.answer)}"
    return _row(problem.text, solution, problem.answer, rng)


def _disagreeing(problem: Problem, rng: random.Random) -> Row:
    return clean_row(problem, rng) | {"answer": _wrong(problem)}


def _multiple_choice(problem: Problem, rng: random.Random) -> Row:
    options = [problem.answer, *map(str, rng.sample(range(MODULUS, 3 * MODULUS), 3))]
    rng.shuffle(options)
    text = problem.text + "\n" + " ".join(f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(problem.answer)]
    kind = rng.choice(["MCQ", "math-word-problem"])  # real rows are not always marked as multiple choice
    return _row(text, f"{_working(problem)}\n{_conclusion(letter)}", letter, rng, kind)


def _proof(problem: Problem, rng: random.Random) -> Row:
    chain = problem.text.rsplit("\n", 1)[0]
    text = f"{chain}\nProve that the last value is {problem.values[-1]}."
    solution = f"{_working(problem)}\nwhich was to be proved. {_conclusion(str(problem.values[-1]))}"
    return _row(text, solution, str(problem.values[-1]), rng, rng.choice(["proof", "math-word-problem"]))


def _several_questions(problem: Problem, rng: random.Random) -> Row:
    chain = problem.text.rsplit("\n", 1)[0]
    text = f"{chain}\n(a) What is the value after step 1? (b) What is the last value?"
    answer = f"{problem.values[0]}, {problem.values[-1]}"
    return _row(text, f"{_working(problem)}\n{_conclusion(answer)}", answer, rng)


def _needs_figure(problem: Problem, rng: random.Random) -> Row:
    chain, question = problem.text.rsplit("\n", 1)
    pointer = rng.choice(["The start is the number in the figure below.", "![](https://cdn.example.org/img/fig-1.png)"])
    text = f"{chain.replace(f'Start with {problem.start}.', pointer)}\n{question}"
    return _row(text, f"{_working(problem)}\n{_conclusion(problem.answer)}", problem.answer, rng)


DEFECT_MAKERS: dict[str, Callable[[Problem, random.Random], Row]] = {
    "empty_problem": _empty_problem,
    "no_answer": _no_answer,
    "no_box": _no_box,
    "two_boxes": _two_boxes,
    "disagreeing": _disagreeing,
    "multiple_choice": _multiple_choice,
    "proof": _proof,
    "several_questions": _several_questions,
    "needs_figure": _needs_figure,
}
DEFECTS = (*DEFECT_MAKERS, "duplicate", "contamination")


def _restyled(row: Row, rng: random.Random) -> Row:
    """A copy of a row with a new id, and perhaps other white space or upper case."""
    text = row["problem"]
    text = rng.choice([text, text.replace("\n", " \n ") + "\n", text.replace("\n", "  "), text.upper()])
    return _row(text, row["solution"], row["answer"], rng)


def _benchmark_problems(count: int, seed: int) -> list[Problem]:
    return list(islice(draw_problems("benchmark", random.Random(f"benchmark/{seed}")), count))


def _train_rows(count: int, seed: int) -> Iterator[tuple[Row, str | None]]:
    """Draw train rows, each with its defect or None."""
    rng = random.Random(f"train/{seed}")
    problems = draw_problems("train", rng)
    benchmark = _benchmark_problems(CONTAMINATION_POOL, BENCHMARK_SEED)
    clean: list[Row] = []
    for _ in range(count):
        defect = rng.choice(DEFECTS) if rng.random() < DEFECT_SHARE else None
        if defect == "contamination":
            yield _restyled(clean_row(rng.choice(benchmark), rng), rng), defect
        elif defect == "duplicate" and clean:
            yield _restyled(rng.choice(clean), rng), defect
        elif defect in DEFECT_MAKERS:
            yield DEFECT_MAKERS[defect](next(problems), rng), defect
        else:
            clean.append(clean_row(next(problems), rng))
            yield clean[-1], None


def labelled_rows(split: Split, count: int, seed: int) -> Iterator[tuple[Row, str | None]]:
    """Draw rows with their defects (None for clean rows)."""
    if split == "train":
        yield from _train_rows(count, seed)
        return
    rng = random.Random(f"{split}/{seed}")
    names = random.Random(f"{split}/{seed}/uuid")  # a separate generator, so that the problems do not depend on the ids
    for problem in islice(draw_problems(split, rng), count):
        yield clean_row(problem, names), None


def draw_rows(split: Split, count: int, seed: int) -> Iterator[Row]:
    """Draw `count` rows of a split. With the same seed, a shorter draw is a prefix of a longer one."""
    return (row for row, _ in labelled_rows(split, count, seed))


def benchmark_rows(count: int, seed: int = BENCHMARK_SEED) -> Iterator[Row]:
    """Draw rows of the benchmark. All problems are distinct."""
    return draw_rows("benchmark", count, seed)
