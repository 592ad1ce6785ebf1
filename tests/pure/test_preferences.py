"""Preference pairs and value paths of random trees against a second implementation, and the reason of trees without pairs."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Pairs
from vgs_ray.labels.preferences import preferences
from vgs_ray.labels.tree_values import tree_values
from vgs_ray.labels.value_paths import ValuePath, value_paths

OUTCOMES = ("correct", "incorrect", "incomplete", "unknown")


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """A row of `trees`; a node's tokens are its id and a common token, so siblings differ."""
    parents = [draw(st.integers(0, index)) for index in range(draw(st.integers(0, 12)))]
    ended = [index + 1 not in parents and draw(st.booleans()) for index in range(len(parents))]
    outcomes = [draw(st.sampled_from(OUTCOMES)) if end else None for end in ended]
    valued = draw(st.booleans())
    values = [draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])) if valued and not end else None for end in ended]
    states = [
        "length" if outcome == "incomplete" and draw(st.booleans()) else "finished" if outcome else "kept"
        for outcome in outcomes
    ]
    q, visits = tree_values(parents, values, outcomes)
    return {
        "parents": parents, "tokens": [[index % 5, 9] for index in range(len(parents))], "states": states, "outcomes": outcomes,
        "q": q[1:], "visits": visits[1:], "prompt": [3, 4], "error": draw(st.sampled_from([None, None, None, "too long"])),
    }  # fmt: skip


CONFIGS = st.builds(
    Pairs,
    kind=st.sampled_from(["step", "solution"]),
    min_margin=st.sampled_from([0.0, 0.5, 1.0]),
    min_visits=st.integers(0, 3),
    per_problem=st.integers(0, 4),
)


def path(tree: dict[str, Any], id: int) -> list[int]:
    return path(tree, tree["parents"][id - 1]) + tree["tokens"][id - 1] if id else []


def steps(tree: dict[str, Any], config: Pairs) -> set[tuple[int, int]]:
    """Ids (chosen, rejected): from the definition, over all pairs of nodes."""
    if tree["error"] or "correct" not in tree["outcomes"]:
        return set()
    nodes = range(1, len(tree["parents"]) + 1)
    q, visits = ({id: tree[name][id - 1] for id in nodes} for name in ("q", "visits"))
    usable = [id for id in nodes if q[id] is not None and visits[id] >= config.min_visits]

    def siblings(id: int) -> list[int]:
        return [other for other in usable if tree["parents"][other - 1] == tree["parents"][id - 1]]

    def is_best(id: int) -> bool:
        return all((q[other], visits[other], -other) <= (q[id], visits[id], -id) for other in siblings(id))

    return {
        (a, b)
        for a, b in permutations(usable, 2)
        if b in siblings(a) and is_best(a) and q[a] > q[b] and q[a] - q[b] >= config.min_margin
    }


@given(members=st.lists(trees(), min_size=1, max_size=3), config=CONFIGS.filter(lambda each: each.kind == "step"))
@settings(max_examples=200, deadline=None)
def test_step_pairs_are_the_best_sibling_against_each_worse_one(members: list[dict[str, Any]], config: Pairs) -> None:
    pairs, reasons = preferences(members, config)
    expected = {(at, *ids) for at, tree in enumerate(members) for ids in steps(tree, config)}
    found = {(pair.chosen.tree, pair.chosen.node, pair.rejected.node) for pair in pairs}
    assert len(found) == len(pairs) == min(len(expected), config.per_problem or len(expected))
    assert found <= expected
    margins = [pair.chosen.q - pair.rejected.q for pair in pairs]
    left = [members[at]["q"][a - 1] - members[at]["q"][b - 1] for at, a, b in expected - found]
    assert max(left, default=0) <= min(margins, default=2)
    for pair in pairs:
        tree = members[pair.chosen.tree]
        for side in (pair.chosen, pair.rejected):
            assert path(tree, side.node) == pair.prefix + side.tokens
            assert (side.q, side.visits) == (tree["q"][side.node - 1], tree["visits"][side.node - 1])
        assert len(pair.prefix) == 2 * pair.depth
    paired = {pair.chosen.tree for pair in pairs}
    assert sorted([*paired, *reasons]) == list(range(len(members)))
    for at, reason in reasons.items():
        assert (reason == "over_limit") == any(tree == at for tree, *_ in expected)


@given(members=st.lists(trees(), min_size=1, max_size=3), config=CONFIGS.filter(lambda each: each.kind == "solution"))
@settings(max_examples=200, deadline=None)
def test_solution_pairs_use_each_distinct_answer_once(members: list[dict[str, Any]], config: Pairs) -> None:
    pairs, reasons = preferences(members, config)
    answers: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for tree in members:
        for id, (state, outcome) in enumerate(zip(tree["states"], tree["outcomes"], strict=True), 1):
            if state == "finished" and outcome != "unknown":
                answers[outcome == "correct"].add(tuple(path(tree, id)))
    count = min(map(len, answers.values()))
    assert len(pairs) == min(count, config.per_problem or count)
    for side, correct in (("chosen", True), ("rejected", False)):
        used = [tuple(getattr(pair, side).tokens) for pair in pairs]
        assert len(set(used)) == len(used)
        assert set(used) <= answers[correct]
    assert all((pair.prefix, pair.depth, pair.chosen.q, pair.rejected.q) == ([], 0, 1.0, -1.0) for pair in pairs)
    paired = {side.tree for pair in pairs for side in (pair.chosen, pair.rejected)}
    assert sorted([*paired, *reasons]) == list(range(len(members)))


def tree(*nodes: tuple[int, str | None], values: tuple[float, ...] = (), error: str | None = None) -> dict[str, Any]:
    """A tree of (parent, outcome)."""
    parents, outcomes = [parent for parent, _ in nodes], [outcome for _, outcome in nodes]
    q, visits = tree_values(parents, values or [None] * len(nodes), outcomes)
    states = ["finished" if outcome else "kept" for outcome in outcomes]
    tokens = [[at] for at in range(len(nodes))]
    return {
        "parents": parents, "tokens": tokens, "states": states, "outcomes": outcomes, "q": q[1:], "visits": visits[1:],
        "error": error,
    }  # fmt: skip


def test_every_reason() -> None:
    right, wrong = (0, "correct"), (0, "incorrect")
    split = tree((0, None), (0, None), (1, "correct"), (1, "incorrect"), (2, "correct"), (2, "correct"))
    cases = {
        "failed": tree(error="too long"),
        "no_answer": tree((0, None), (0, "unknown")),
        "no_correct_answer": tree(wrong, (0, None), (2, "incomplete"), values=(0.0, 0.9, 0.0)),
        "no_incorrect_answer": tree(right, right),
        "no_siblings": tree((0, None), (1, "correct"), (0, None), (3, "incorrect")),
        "equal_q": tree((0, None), (0, None), (1, "correct"), (2, "correct"), (1, "incorrect"), (2, "incorrect")),
        "below_margin": split,
    }
    for reason, case in cases.items():
        visits = 3 if reason in ("no_siblings", "equal_q", "below_margin") else 1
        pairs, reasons = preferences([case], Pairs(min_margin=1.5, min_visits=visits))
        assert (pairs, reasons) == ([], {0: reason})
    both = preferences([tree(right, wrong), tree(right, wrong)], Pairs(per_problem=1))
    assert (len(both[0]), both[1]) == (1, {1: "over_limit"})
    assert preferences([tree(right), tree(wrong)], Pairs(kind="solution"))[1] == {}
    alone = preferences([tree(wrong), tree((0, None), (1, "incorrect"), (1, "correct"))], Pairs(kind="solution"))
    assert len(alone[0]) == 1


def test_blocks_without_a_value_or_an_outcome_below_are_in_no_pair() -> None:
    grown = tree((0, None), (0, None), (0, None), (1, "correct"), (1, "incorrect"), (2, None), (3, "incorrect"))
    pairs, _ = preferences([grown], Pairs(min_margin=0.0))
    assert {(pair.chosen.node, pair.rejected.node) for pair in pairs} == {(1, 3), (4, 5)}


def line(tree: dict[str, Any], id: int) -> list[int]:
    return [*line(tree, tree["parents"][id - 1]), id] if id else []


@given(tree=trees())
@settings(max_examples=200, deadline=None)
def test_value_paths_end_where_no_node_below_has_q_and_have_all_q_before(tree: dict[str, Any]) -> None:
    with_q = [id for id, q in enumerate(tree["q"], 1) if q is not None and not tree["error"]]
    expected = []
    for node in with_q:
        if not any(node in line(tree, other) for other in with_q if other != node):
            targets = [id for id in line(tree, node) if id in with_q]
            positions = [len(tree["prompt"] + path(tree, id)) - 1 for id in targets]
            tokens, q = tree["prompt"] + path(tree, node), [tree["q"][id - 1] for id in targets]
            expected.append(ValuePath(node, tokens, positions, q, tree["outcomes"][node - 1]))
    assert value_paths(tree, "step") == expected


@given(tree=trees())
@settings(max_examples=200, deadline=None)
def test_value_paths_of_solutions_have_the_reward_at_the_end_of_each_answer(tree: dict[str, Any]) -> None:
    rewards = {"correct": 1.0, "incorrect": -1.0, "incomplete": -1.0}
    expected = []
    for node, (state, outcome) in enumerate(zip(tree["states"], tree["outcomes"], strict=True), 1):
        if state == "finished" and outcome in rewards and not tree["error"]:
            tokens = tree["prompt"] + path(tree, node)
            expected.append(ValuePath(node, tokens, [len(tokens) - 1], [rewards[outcome]], outcome))
    assert value_paths(tree, "solution") == expected
