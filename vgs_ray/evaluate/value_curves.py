"""Values of several value models along the same finished answers.

In: answers to held-out problems, and the value after each of their tokens for each run. Out: metrics, mean values by relative
position, and a few answers in full, as compare.json has them. If the answers have steps, the means are those of the values at the
ends of steps, where a step-level search reads them and where a process reward model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.calibration import auc, brier_score, expected_calibration_error, reliability
from vgs_ray.evaluate.statistics import interval

POSITIONS = 10
"""Equal parts of an answer, for the mean values by position."""
Floats = NDArray[np.float32]


class Answer(NamedTuple):
    """A finished answer to a held-out problem.

    Attributes:
        problem_id: of the problem.
        tokens: (length,) of the prompt and the answer.
        start: position of the first token of the answer.
        correct: whether the answer is correct.
        step_ends: positions of the tokens that end a step, counted from the start of the answer.
    """

    problem_id: str
    tokens: NDArray[np.int32]
    start: int
    correct: bool
    step_ends: tuple[int, ...] = ()


def value_curves(
    answers: Sequence[Answer], values: Mapping[str, Sequence[Floats]], examples: int = 3
) -> dict[str, Any]:
    """Summarize the values of each run along the same answers.

    Args:
        answers: correct and incorrect ones.
        values: for each run, P(correct) after each token of each answer; arrays of shape (length of the answer,).
        examples: number of problems whose answers are returned in full: the first ones by id that have a correct and an
            incorrect answer.

    Returns:
        `answers`, `problems`: counts. `runs`: for each run `tokens` and, if the answers have steps, `steps`: Brier score, AUC and
        ECE over all tokens and over the ends of steps, where every answer has the same weight; `ranked_pairs`; and `correct` and
        `incorrect`: the mean value after each tenth of an answer with its 95% interval over problems. `examples`: for each
        problem a correct and an incorrect answer with their values by run.
    """
    ends = [_step_ends(answer) for answer in answers]
    return {
        "answers": len(answers),
        "problems": len({answer.problem_id for answer in answers}),
        "runs": {run: _of_run(answers, each, ends) for run, each in values.items()},
        "examples": [
            {
                "problem_id": answers[right].problem_id,
                "answers": [_example(answers, values, at) for at in (right, wrong)],
            }
            for right, wrong in _pairs(answers)[:examples]
        ],
    }


def _step_ends(answer: Answer) -> NDArray[np.int64]:
    """Positions of the ends of steps; the last step ends with the answer. All positions of an answer without steps."""
    length = len(answer.tokens) - answer.start
    return np.unique([*answer.step_ends, length - 1]) if answer.step_ends else np.arange(length)


def _of_run(answers: Sequence[Answer], values: Sequence[Floats], ends: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    at_ends = [each[positions] for each, positions in zip(values, ends, strict=True)]
    steps = {"steps": _metrics(answers, at_ends)} if any(answer.step_ends for answer in answers) else {}
    ranked = {"ranked_pairs": ranked_pairs(answers, [float(each[-1]) for each in values])}
    return {"tokens": _metrics(answers, values), **steps, **ranked, **_by_outcome(answers, values, ends)}


def ranked_pairs(answers: Sequence[Answer], values: Sequence[float]) -> float | None:
    """Share of the pairs of a correct and an incorrect answer to one problem in which the correct one has the higher value.

    Equal values count half. This is what a search needs: it chooses among answers to the same problem.

    Args:
        answers: the answers.
        values: of each finished answer.

    Returns:
        A number in [0, 1]; None if no problem has answers of both outcomes.
    """
    by_problem: dict[str, dict[bool, list[float]]] = {}
    for answer, value in zip(answers, values, strict=True):
        by_problem.setdefault(answer.problem_id, {True: [], False: []})[answer.correct].append(value)
    gaps = [right - wrong for both in by_problem.values() for right in both[True] for wrong in both[False]]
    return float(np.heaviside(gaps, 0.5).mean()) if gaps else None


def _metrics(answers: Sequence[Answer], values: Sequence[Floats]) -> dict[str, float | None]:
    flat = np.concatenate(values)
    correct = np.concatenate([np.full(len(each), answer.correct) for answer, each in zip(answers, values, strict=True)])
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in values])
    return {
        "brier": brier_score(correct, flat, weights),
        "auc": auc(correct, flat, weights),
        "ece": expected_calibration_error(reliability(flat, correct, weights)),
    }


def _by_outcome(
    answers: Sequence[Answer], values: Sequence[Floats], ends: Sequence[NDArray[np.int64]]
) -> dict[str, list[dict[str, float]]]:
    """Mean values by position. Answers of a problem are averaged first, because they are not independent."""
    curves = {}
    for outcome, wanted in (("correct", True), ("incorrect", False)):
        by_problem: dict[str, list[Floats]] = {}
        for answer, each, positions in zip(answers, values, ends, strict=True):
            if answer.correct == wanted:
                by_problem.setdefault(answer.problem_id, []).append(_after_tenths(each, positions))
        means = np.array([np.mean(curve, 0) for curve in by_problem.values()])
        curves[outcome] = [interval(column)._asdict() for column in means.T]
    return curves


def _after_tenths(values: Floats, positions: NDArray[np.int64]) -> Floats:
    """The value after each of `POSITIONS` equal parts: the last one at `positions` so far, or the first one before that."""
    ends = np.ceil(np.linspace(0, len(values), POSITIONS + 1)[1:]) - 1
    return values[positions[np.maximum(np.searchsorted(positions, ends, "right") - 1, 0)]]


def _pairs(answers: Sequence[Answer]) -> list[tuple[int, int]]:
    """Positions of the first correct and the first incorrect answer of each problem that has both, by problem id."""
    first: dict[str, dict[bool, int]] = {}
    for position, answer in enumerate(answers):
        first.setdefault(answer.problem_id, {}).setdefault(answer.correct, position)
    return [(both[True], both[False]) for _, both in sorted(first.items()) if len(both) == 2]


def _example(answers: Sequence[Answer], values: Mapping[str, Sequence[Floats]], at: int) -> dict[str, Any]:
    return {
        "correct": answers[at].correct,
        "tokens": answers[at].tokens[answers[at].start :].tolist(),
        "step_ends": list(answers[at].step_ends),
        "values": {run: np.round(each[at], 4).tolist() for run, each in values.items()},
    }
