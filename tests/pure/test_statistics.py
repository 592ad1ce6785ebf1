"""Intervals against closed forms and scipy; FLOPs and model sizes against known numbers."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vgs_ray.engines.interface import Score
from vgs_ray.evaluate.statistics import average, difference, interval, pass_at_k
from vgs_ray.search.flops import Cost, TreeCosts, forward_flops, model_size, sum_costs, tree_costs, tree_flops
from vgs_ray.search.model_size import ModelSize
from vgs_ray.search.tree import ROOT, Tree

DRAWN = np.random.default_rng(3).beta(0.5, 0.5, size=120)


def test_interval_agrees_with_scipy() -> None:
    ours = interval(DRAWN, resamples=20_000)
    theirs = stats.bootstrap((DRAWN,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.mean == pytest.approx(DRAWN.mean())
    assert ours[1:] == pytest.approx(tuple(theirs), abs=0.004)


def test_interval_is_close_to_the_normal_interval() -> None:
    half = 1.96 * DRAWN.std() / len(DRAWN) ** 0.5
    ours = interval(DRAWN, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((DRAWN.mean() - half, DRAWN.mean() + half), abs=0.005)


def test_pairing_removes_shared_variance() -> None:
    a, b = np.clip(DRAWN + 0.1, 0, 1), DRAWN
    paired = difference(a, b)
    assert paired.low > 0
    assert paired.high - paired.low < 0.3 * (interval(a).high - interval(a).low)
    flipped = difference(b, a)
    assert flipped == pytest.approx((-paired.mean, -paired.high, -paired.low))


def test_small_sets_have_student_intervals() -> None:
    small = DRAWN[:30]
    theirs = stats.ttest_1samp(small, 0.0).confidence_interval(0.95)
    assert interval(small) == pytest.approx((small.mean(), *theirs))
    other = DRAWN[30:60]
    paired = stats.ttest_rel(small, other).confidence_interval(0.95)
    assert difference(small, other) == pytest.approx((small.mean() - other.mean(), *paired))
    assert interval([0.3]) == (0.3, 0.0, 1.0)
    assert difference([0.3], [0.1]) == (pytest.approx(0.2), -1.0, 1.0)
    assert interval([0.0, 1.0]).low == 0.0


def test_an_average_weighs_each_set_equally() -> None:
    small, large = DRAWN[:20], DRAWN[20:]
    # The average is half the difference to the mirrored set, for which scipy has Welch's interval.
    welch = stats.ttest_ind(small, -large, equal_var=False).confidence_interval(0.95)
    ours = average([small, large])
    assert ours == pytest.approx(((small.mean() + large.mean()) / 2, welch.low / 2, welch.high / 2))
    boot = average([DRAWN, 1 - DRAWN], resamples=20_000)
    half = 1.96 * DRAWN.std() / len(DRAWN) ** 0.5 / 2**0.5
    assert boot == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=0.005)


def test_intervals_cover_the_truth() -> None:
    generator, misses = np.random.default_rng(0), 0
    for _ in range(400):
        estimate = interval(generator.beta(2, 1, size=15), resamples=300)
        misses += not estimate.low <= 2 / 3 <= estimate.high
    assert 0.02 < misses / 400 < 0.09


def test_intervals_come_from_their_seed() -> None:
    assert interval(DRAWN, seed=1) == interval(DRAWN, seed=1) != interval(DRAWN, seed=2)


def test_unanimous_problems_have_exact_binomial_intervals() -> None:
    exact = stats.binomtest(30, 30).proportion_ci(0.95, "exact")
    assert interval([1.0] * 30) == pytest.approx((1.0, exact.low, 1.0))
    assert interval([0.0] * 30) == pytest.approx((0.0, 0.0, 1 - exact.low))
    assert interval([0.5] * 30) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [[0.5]], [float("nan")], [1.5], [-0.1]])
def test_interval_refuses(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shape|correctness"):
        interval(values)


def test_difference_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="a has 2 problems and b 1"):
        difference([0.1, 0.2], [0.1])


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(correct: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(correct)))
    subsets = [any(subset) for subset in combinations(correct, k)]
    assert pass_at_k(len(correct), sum(correct), k) == pytest.approx(sum(subsets) / len(subsets))


@pytest.mark.parametrize(("samples", "correct", "k"), [(4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1)])
def test_pass_at_k_refuses(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct"):
        pass_at_k(samples, correct, k)


def test_flops_do_not_depend_on_how_a_sequence_is_split() -> None:
    size = ModelSize(1000, 2, 16)
    assert forward_flops(size, 1, 0) == 2 * 1000 + 4 * 2 * 16
    for cut in range(11):
        parts = forward_flops(size, cut, 5) + forward_flops(size, 10 - cut, 5 + cut)
        assert parts == pytest.approx(forward_flops(size, 10, 5))


def test_flops_of_a_tree() -> None:
    policy, value = ModelSize(1000, 2, 16), ModelSize(500, 1, 8)
    tree = Tree((1, 2, 3))
    shared = tree.add(
        ROOT, group=0, round=0, index=0, tokens=(4, 5), score=Score(0.5, (), 5), state="kept", prefilled=3
    )
    tree.add(shared.id, group=0, round=1, index=0, tokens=(6,), score=Score(0.6, (), 1), state="finished")
    tree.add(shared.id, group=0, round=1, index=1, tokens=(7, 8), score=Score(0.4, (), 3), state="pruned", prefilled=1)
    tree.add(ROOT, group=1, round=0, index=0, tokens=(9,), score=None, state="finished")
    # Each model forwards the first answer once. Before the pruned block, four of five tokens are cached.
    both = [forward_flops(size, 6, 0) + forward_flops(size, 3, 4) for size in (policy, value)]
    assert tree_flops(tree, policy, value) == pytest.approx(sum(both) + forward_flops(policy, 1, 3))
    costs = tree_costs(tree, policy, value)
    assert (costs.groups[0].generated, costs.groups[0].scored, costs.prompt.scored) == (5, 9, 3)
    assert (costs.groups[1].generated, costs.groups[1].value_flops) == (1, 0)
    assert sum_costs([]).flops == 0


@given(policy_cached=st.integers(0, 3), value_cached=st.integers(0, 3))
def test_a_prompt_that_another_search_cached_costs_as_much(policy_cached: int, value_cached: int) -> None:
    def search(policy_cached: int, value_cached: int) -> TreeCosts:
        tree = Tree((1, 2, 3))
        for group, known in enumerate([(policy_cached, value_cached), (3, 3)]):  # the second group reads nothing again
            score = Score(0.5, (), 5 - known[1])
            tree.add(
                ROOT,
                group=group,
                round=0,
                index=0,
                tokens=(4, 5),
                score=score,
                state="finished",
                prefilled=3 - known[0],
            )
        return tree_costs(tree, ModelSize(1000, 2, 16), ModelSize(500, 1, 8))

    alone, later = search(0, 0), search(policy_cached, value_cached)
    assert alone.cached == Cost()
    assert sum_costs([later.cached, *later.groups.values()]) == pytest.approx(sum_costs(list(alone.groups.values())))


def test_layers_of_a_value_head_forward_what_the_policy_forwards() -> None:
    policy, value, head = ModelSize(1000, 2, 16), ModelSize(1400, 3, 16), ModelSize(400, 1, 16)
    tree = Tree((1, 2, 3))
    tree.add(ROOT, group=0, round=0, index=0, tokens=(4, 5), score=Score(0.5, (), 0), state="finished", prefilled=3)
    costs = tree_costs(tree, policy, value, head)
    assert costs.groups[0] == (2, 0, forward_flops(policy, 5, 0), forward_flops(head, 5, 0), 3)
    assert costs.prompt == (0, 0, forward_flops(policy, 3, 0), forward_flops(head, 3, 0), 3)


DISTILL_1_5B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}


def write(folder: Path, config: dict[str, object]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_size_of_the_papers_models(tmp_path: Path) -> None:
    backbone, embedding = 1_543_714_304, 1536 * 151936
    assert model_size(write(tmp_path, DISTILL_1_5B)) == (
        backbone,
        28,
        1536,
    )  # the output layer has the size of the embedding
    value = {**DISTILL_1_5B, "architectures": ["VgsValueModel"]}
    assert model_size(write(tmp_path, value) / "config.json").params == backbone - embedding


def test_size_of_a_qwen3(tmp_path: Path) -> None:
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    }
    # Qwen3-0.6B: 596,049,920 weights with tied embeddings, so all of them are multiplied.
    assert model_size(write(tmp_path, config)) == (596_049_920, 28, 2048)


def test_an_unsupported_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 'hidden_size'"):
        model_size(write(tmp_path, {"model_type": "mamba"}))
