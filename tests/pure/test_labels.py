"""Labels: classes of outcomes, distribution of cuts, token values compared with a brute-force count."""

from __future__ import annotations

import sys
import tracemalloc
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vgs_ray.config import Label
from vgs_ray.data.schemas import LABELS, TOKENS
from vgs_ray.labels.label_rows import label_rows
from vgs_ray.labels.outcomes import cut_positions, of_first_roll_ins, outcome_labels
from vgs_ray.labels.token_values import outcome_values, step_values, token_values

PATHS = st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=6), st.booleans()), max_size=12)


def test_outcomes() -> None:
    outcomes = pa.chunked_array([["incorrect", "correct", "incomplete", "unknown", ""]])
    assert outcome_labels(outcomes).to_pylist() == [0, 1, 2, None, None]


def test_label_rows_leave_out_unknown_outcomes_and_hopeless_problems() -> None:
    outcomes = ["correct", "unknown", "incorrect", "incorrect", "incomplete"]
    rows = pa.table(
        {
            "roll_out_id": [f"{problem}/ref/0/{at}" for at, problem in enumerate("aaabb")],
            "roll_in_id": [f"{problem}/ref/0" for problem in "aaabb"],
            "problem_id": list("aaabb"),
            "cut": pa.array([0, 1, 2, 0, 1], pa.int32()),
            "outcome": outcomes,
            "split": ["train"] * 5,
        }
    )
    kept = label_rows(rows, None, Label(hopeless_share=1.0))
    assert kept.schema == LABELS
    assert [row["label"] for row in kept.to_pylist()] == [1, 0, 0, 2]
    assert kept["values"].null_count == 4
    without = label_rows(rows, None, Label(hopeless_share=0.0))
    assert without["problem_id"].to_pylist() == ["a", "a"]


def test_label_rows_with_values_have_one_for_each_completion_token() -> None:
    rows = pa.table(
        {
            "roll_out_id": ["a/ref/0/0", "a/ref/0/1"],
            "roll_in_id": ["a/ref/0"] * 2,
            "problem_id": ["a"] * 2,
            "cut": pa.array([1, 2], pa.int32()),
            "outcome": ["correct", "incorrect"],
            "split": ["train"] * 2,
            "tokens": pa.array([[6, 7], [8]], TOKENS),
        }
    )
    roll_ins = pa.table({"roll_in_id": ["a/ref/0"], "tokens": pa.array([[5, 6, 9]], TOKENS)})
    labels = label_rows(rows, roll_ins, Label(kind="token_values"))
    assert labels["values"].to_pylist() == [[0.5, 1.0], [0.0]]


@given(st.integers(0, 2000), st.integers(0, 9), st.sampled_from(["uniform", "sqrt"]), st.integers(0, 2**31 - 1))
def test_cuts_lie_inside_the_roll_in(length: int, cuts: int, law: str, seed: int) -> None:
    positions = cut_positions(length, cuts, law, seed)  # type: ignore[arg-type]
    assert len(positions) == cuts
    assert positions == sorted(positions) == cut_positions(length, cuts, law, seed)  # type: ignore[arg-type]
    assert all(0 <= cut < max(length, 1) for cut in positions)


@pytest.mark.parametrize(("law", "power"), [("uniform", 1.0), ("sqrt", 1.5)])
def test_cuts_follow_their_law(law: str, power: float) -> None:
    cuts = cut_positions(10**6, 4000, law, seed=1)  # type: ignore[arg-type]
    assert stats.kstest([cut / 10**6 for cut in cuts], lambda x: x**power).pvalue > 0.01


def test_cuts_differ_between_seeds() -> None:
    assert cut_positions(10**6, 4, "sqrt", 1) != cut_positions(10**6, 4, "sqrt", 2)


def values_of(paths: list[list[int]], correct: list[bool]) -> list[list[float]]:
    return [values.tolist() for values in token_values(paths, correct)]


def brute_force(paths: list[list[int]], correct: list[bool]) -> list[list[float]]:
    def share(prefix: list[int]) -> float:
        among = [ok for path, ok in zip(paths, correct, strict=True) if path[: len(prefix)] == prefix]
        return sum(among) / len(among)

    return [[share(path[: k + 1]) for k in range(len(path))] for path in paths]


@given(PATHS)
def test_token_values_are_shares_of_correct_paths(drawn: list[tuple[list[int], bool]]) -> None:
    paths, correct = [path for path, _ in drawn], [ok for _, ok in drawn]
    assert values_of(paths, correct) == brute_force(paths, correct)


def test_token_values_by_hand() -> None:
    paths = [[1, 2, 3], [1, 2, 4], [1, 5], [6], [], [1, 2, 3]]
    assert values_of(paths, [True, False, False, True, True, True]) == [
        [0.5, 2 / 3, 1.0],
        [0.5, 2 / 3, 0.0],
        [0.5, 0.0],
        [1.0],
        [],
        [0.5, 2 / 3, 1.0],
    ]


@given(PATHS)
def test_step_values_are_token_values_at_the_ends_of_steps(drawn: list[tuple[list[int], bool]]) -> None:
    paths, correct = [path for path, _ in drawn], [ok for _, ok in drawn]
    found = step_values(paths, correct, delimiters=[0, 2])
    for path, values, expected in zip(paths, found, brute_force(paths, correct), strict=True):
        ends = [place for place, token in enumerate(path) if token in (0, 2) or place + 1 == len(path)]
        assert np.flatnonzero(~np.isnan(values)).tolist() == ends
        assert values[ends].tolist() == [expected[place] for place in ends]


@given(PATHS)
def test_outcome_values_are_the_outcome_at_every_token(drawn: list[tuple[list[int], bool]]) -> None:
    values = outcome_values([path for path, _ in drawn], [ok for _, ok in drawn])
    assert [each.tolist() for each in values] == [[float(ok)] * len(path) for path, ok in drawn]


def test_first_roll_ins_are_those_of_the_lowest_indices() -> None:
    ids = pa.chunked_array([["p/a/b/10/whole", "p/ref/9/0", "p/ref/0/11"], ["q/ref/2/whole"]])
    assert of_first_roll_ins(ids, 10).to_pylist() == [False, True, True, True]
    assert of_first_roll_ins(ids, 2).to_pylist() == [False, False, True, False]
    assert of_first_roll_ins(ids, 0).to_pylist() == [True] * 4


def test_token_values_of_long_paths() -> None:
    long = [7] * 50_000
    assert values_of([long, long], [True, False]) == [[0.5] * 50_000] * 2


@pytest.mark.parametrize("values", [token_values, outcome_values])
def test_values_need_one_outcome_each(values) -> None:
    with pytest.raises(ValueError, match="2 paths have 1 outcomes"):
        values([[1], [2]], [True])


TREES = st.recursive(
    st.lists(st.integers(0, 2**31 - 1), max_size=4).map(lambda tokens: [tokens]),
    lambda below: st.tuples(st.lists(st.integers(0, 3), max_size=3), st.lists(below, min_size=1, max_size=3)).map(
        lambda node: [node[0] + path for paths in node[1] for path in paths]
    ),
    max_leaves=12,
)


@given(TREES, st.data())
def test_token_values_of_paths_with_deep_shared_prefixes(paths: list[list[int]], data: st.DataObject) -> None:
    paths = data.draw(st.permutations(paths))
    correct = data.draw(st.lists(st.booleans(), min_size=len(paths), max_size=len(paths)))
    assert values_of(paths, correct) == brute_force(paths, correct)


def roll_outs_of_a_problem(length: int) -> list[np.ndarray]:
    """14 roll-ins, each continued from 4 cuts, as in the published data set."""
    draw = np.random.default_rng(0)
    roll_ins = draw.integers(0, 150_000, (14, length), np.int32)
    cuts = draw.integers(0, length, (14, 4))
    return [
        np.concatenate([tokens[:cut], draw.integers(0, 150_000, length - cut, np.int32)])
        for tokens, places in zip(roll_ins, cuts, strict=True)
        for cut in places
    ]


def test_token_values_of_the_largest_problem_are_light() -> None:
    paths = roll_outs_of_a_problem(16_384)
    tracemalloc.start()
    values = token_values(paths, [index % 3 == 0 for index in range(56)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(each) for each in values] == [16_384] * 56
    assert peak < 48 * 2**20  # a dictionary for each token takes 240 MiB


def test_the_work_for_token_values_is_linear_in_tokens() -> None:
    """The number of executed lines depends on the number of paths and not on their length; each line takes linear time."""

    def executed_lines(length: int) -> int:
        paths, lines = roll_outs_of_a_problem(length), 0

        def count(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            token_values(paths, [True, False] * 28)
        finally:
            sys.settrace(before)
        return lines

    assert executed_lines(24_000) < 1.2 * executed_lines(6_000)
