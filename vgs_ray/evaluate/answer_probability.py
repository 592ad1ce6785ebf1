"""Fit the probability that the chosen answer of a search is correct, and measure it on problems that it was not fitted on.

In: graded searches. Out: for each explorer an `AnswerProbability` and a row of report.json. numpy and scikit-learn only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.config import Evaluate
from vgs_ray.evaluate.answer_statistics import calibration
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.votes import AnswerPool
from vgs_ray.search.answer_probability import AnswerProbability, features
from vgs_ray.search.select import Equivalent

FOLDS = 10
FEWEST = 2 * FOLDS
"""Problems with correct, and with wrong, chosen answers that a fit needs."""


class ChosenAnswer(NamedTuple):
    """The answer that the weighted majority chose at one budget.

    Attributes:
        problem_id: of its problem.
        budget: number of generations in parallel.
        share: weight of its class as a share of all weights.
        value: highest value of an answer of its class.
        correct: whether it is.
    """

    problem_id: str
    budget: int
    share: float
    value: float
    correct: bool


def chosen_answers(
    searches: Iterable[GradedSearch], config: Evaluate, equivalent: Equivalent | None = None
) -> dict[str, list[ChosenAnswer]]:
    """The chosen answers of the samples and of the guided search, at each budget, from disjoint runs of groups.

    Answers that could not be judged are left out.
    """
    widths = {"sample": 1, "beam": config.beam.width}
    found: dict[str, list[ChosenAnswer]] = {name: [] for name in widths}
    for search in searches:
        if search.explorer in widths:
            pool, width = AnswerPool.of_search(search, equivalent), widths[search.explorer]
            groups = config.samples if search.explorer == "sample" else config.beam.groups
            for budget in sorted(set(config.budgets)):
                size = budget // width
                for start in range(0, groups - size + 1, size) if size and budget % width == 0 else ():
                    chosen = _chosen(pool.of_groups(range(start, start + size)), search.problem_id, budget)
                    found[search.explorer] += [chosen] if chosen else []
    return found


def _chosen(pool: AnswerPool, problem: str, budget: int) -> ChosenAnswer | None:
    weighed = pool.weigh("weighted_majority")
    total = sum(each.weight for each in weighed)
    if not total:
        return None
    winner = max(weighed, key=lambda each: (each.weight, each.max_value))
    outcome = pool.leaves[winner.members[0]].outcome
    if outcome not in ("correct", "incorrect"):
        return None
    return ChosenAnswer(problem, budget, winner.weight / total, winner.max_value, outcome == "correct")


def fit(chosen: Sequence[ChosenAnswer]) -> AnswerProbability | None:
    """The regression for one explorer; None if there are too few problems."""
    if not _enough(chosen):
        return None
    inputs, correct, _ = _arrays(chosen)
    model = _regression().fit(inputs, correct)
    return AnswerProbability(*map(float, (*model.coef_[0], model.intercept_[0])))


def probability_rows(chosen: dict[str, list[ChosenAnswer]]) -> list[dict[str, Any]]:
    """The `probabilities` of report.json: how well the share, the value and the probability predict that an answer is correct.

    The probability of each problem is that of a fit on other problems (cross-validation).
    """
    rows = []
    for search, answers in chosen.items():
        if _enough(answers):
            inputs, correct, problems = _arrays(answers)
            share, value = (np.array([getattr(each, name) for each in answers]) for name in ("share", "value"))
            numbers = {"share": share, "value": value, "probability": _held_out(inputs, correct, problems)}
            measured = {name: calibration(number, correct) for name, number in numbers.items()}
            rows.append({"search": search, "answers": len(answers), "problems": len(set(problems)), **measured})
    return rows


def _enough(chosen: Sequence[ChosenAnswer]) -> bool:
    return all(len({each.problem_id for each in chosen if each.correct == side}) >= FEWEST for side in (True, False))


def _arrays(chosen: Sequence[ChosenAnswer]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]:
    inputs = np.array([features(each.share, each.value, each.budget) for each in chosen])
    return inputs, np.array([each.correct for each in chosen]), np.array([each.problem_id for each in chosen])


def _held_out(
    inputs: NDArray[np.float64], correct: NDArray[np.bool_], problems: NDArray[np.str_]
) -> NDArray[np.float64]:
    from sklearn.model_selection import GroupKFold, cross_val_predict

    predicted = cross_val_predict(
        _regression(), inputs, correct, groups=problems, cv=GroupKFold(FOLDS), method="predict_proba"
    )
    return np.asarray(predicted[:, 1])


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()
