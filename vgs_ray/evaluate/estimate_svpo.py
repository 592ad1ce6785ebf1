"""Estimate the cost of the stages of SVPO before they run: trees, pairs and tune.

In: the sizes of the trees, assumed or measured. Out: a `StageCost` for each stage. The prefix of a block is cached. Scores by a
separate value model are not counted.
"""

from __future__ import annotations

from typing import NamedTuple

from vgs_ray.config import Recipe
from vgs_ray.evaluate.estimate import Means, Speed, StageCost, forward, sized
from vgs_ray.search.model_size import ModelSize

PAIRS_PER_SIMULATION = 0.05
"""Used if the run folder has no pairs to count. 132 trees of recipe svpo with 120 simulations each gave 880 pairs (0.056)."""
PATHS_PER_SIMULATION = 0.2
"""Paths with Q in a tree, by the same trees: 13,575 of 528 trees (0.21)."""


class TreeMeans(NamedTuple):
    """Means of a training tree: tokens of a block, blocks, and preference pairs."""

    block: float
    blocks: float
    pairs: float


def tree_stages(
    recipe: Recipe, problems: int, trees: TreeMeans, means: Means, policy: ModelSize, speed: Speed
) -> list[StageCost]:
    """The costs of trees, pairs and tune.

    Args:
        recipe: the configuration.
        problems: number of problems that get trees.
        trees: means of a tree.
        means: mean lengths of prompts and answers. A block begins in the middle of an answer on average.
        policy: size of the policy.
        speed: speed of one GPU.
    """
    rows, prefix = problems * recipe.trees.per_problem, means.prompt + means.roll_in / 2
    tokens = trees.blocks * trees.block
    flops = forward(policy, means.prompt, 0) + trees.blocks * forward(policy, trees.block, prefix)
    pairs, answer = round(rows * trees.pairs), means.prompt + means.roll_in
    paths = rows * recipe.trees.search.simulations * PATHS_PER_SIMULATION
    grown = StageCost("trees", rows, rows * tokens, flops=rows * flops, hours=speed.generation(rows * tokens))
    return [
        sized(grown, means, means.prompt + tokens),
        # Pairs as token ids and as text, and the paths.
        sized(StageCost("pairs", pairs), means, 2 * (prefix + 2 * trees.block) + paths * answer / max(pairs, 1)),
        _tune(recipe, pairs, prefix + trees.block, answer, policy, speed),
    ]


def _tune(recipe: Recipe, pairs: int, length: float, answer: float, policy: ModelSize, speed: Speed) -> StageCost:
    """Two sequences for each pair, and the paths of each step. Training costs three forward passes, and the reference of DPO
    one more for the pairs."""
    config = recipe.tune
    sequences, passes = 2 * config.epochs * pairs, 4 if config.loss == "dpo" else 3
    paths = config.steps(pairs) * config.paths
    flops = passes * sequences * forward(policy, length, 0) + 3 * paths * forward(policy, answer, 0)
    tokens = sequences * length + paths * answer
    return StageCost("tune", config.epochs * pairs, tokens, None, flops, speed.training(flops))
