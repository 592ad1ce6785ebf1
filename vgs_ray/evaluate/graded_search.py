"""Finished searches with graded answers, as evaluation reads them from the table `searches`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from vgs_ray.config import Mcts
from vgs_ray.grade import Verdict
from vgs_ray.prompts import response_text
from vgs_ray.search.flops import Cost, ModelSizes, sum_costs, tree_costs
from vgs_ray.search.mcts import highest_q_leaf
from vgs_ray.search.tree import Tree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GradedLeaf(NamedTuple):
    """A leaf of a search tree with its grade.

    Attributes:
        group: of the leaf.
        answer: extracted from its text; None if it has none.
        outcome: correct, incorrect, incomplete or unknown.
        value: P(correct) at its last token; None if it was not scored.
        tokens: length of the response.
        walked: whether the walk along the highest Q ends here (MCTS only).
        logprob: mean log-probability of its tokens under the policy; None if the engine did not compute it.
    """

    group: int
    answer: str | None
    outcome: str
    value: float | None
    tokens: int = 0
    walked: bool = False
    logprob: float | None = None


@dataclass(frozen=True)
class GradedSearch:
    """One problem searched by one explorer.

    Attributes:
        problem_id: of the problem.
        explorer: sample, beam, greedy, or the name of a variant.
        leaves: graded answers, sorted by group.
        prompt: cost of forwarding the prompt once. It is also part of the cost of the group that ran first, except `cached`.
        groups: cost of each group, from the engines' counts.
        seconds: wall-clock time of the search, which shared its engines with searches of other problems.
        failed: whether the search raised an error; it then has no leaves and counts as wrong.
        unscored: number of blocks whose score was NaN. Of a tree in which not every block is scored, only finished answers count.
        benchmark: of the problem.
        cached: cost of forwarding the part of the prompt that another search of the same problem had put into the caches.
    """

    problem_id: str
    explorer: str
    leaves: tuple[GradedLeaf, ...]
    prompt: Cost
    groups: Mapping[int, Cost]
    seconds: float
    failed: bool = False
    unscored: int = 0
    benchmark: str = ""
    cached: Cost = field(default_factory=Cost)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], sizes: ModelSizes, shape: Mcts | None = None) -> GradedSearch:
        """Read a row of the table `searches` (see `vgs_ray.data.schemas.SEARCHES`).

        Args:
            row: of the table.
            sizes: sizes of the models.
            shape: of the search, if it is a Monte Carlo tree search.
        """
        name, explorer, benchmark = row["problem_id"], row["explorer"], row["benchmark"]
        if row.get("error"):
            return cls(name, explorer, (), Cost(), {}, row["seconds"], failed=True, benchmark=benchmark)
        tree = Tree.from_json(json.loads(row["tree"]))
        costs, walked = tree_costs(tree, *sizes), highest_q_leaf(tree, shape) if shape else None
        leaves = [
            GradedLeaf(
                leaf["group"], leaf["answer"], leaf["outcome"], leaf["value"], tree.end(leaf["node"]),
                walked is not None and leaf["node"] == walked.id, tree.mean_logprob(leaf["node"]),
            )
            for leaf in json.loads(row["leaves"])
        ]  # fmt: skip
        leaves.sort(key=lambda leaf: leaf.group)
        return cls(
            name, explorer, tuple(leaves), costs.prompt, costs.groups, row["seconds"],
            unscored=_unscored(tree, shape), benchmark=benchmark, cached=costs.cached,
        )  # fmt: skip

    @property
    def correct(self) -> int:
        """Number of correct answers."""
        return sum(leaf.outcome == "correct" for leaf in self.leaves)

    def mean_cost(self, runs: Sequence[range], scored: bool) -> Cost:
        """Mean cost of runs of groups. Without `scored`, the value model's part is left out.

        The groups shared one pass over the prompt, also with other searches, but each run on its own would have needed one.
        """
        shared = sum_costs(
            [self.cached, *(self.groups[group] for run in runs for group in run if group in self.groups)]
        )
        missing_prompts = 1 - 1 / len(runs)
        cost = Cost(
            *(part / len(runs) + missing_prompts * once for part, once in zip(shared, self.prompt, strict=True))
        )
        return cost if scored else cost._replace(scored=0.0, value_flops=0.0)

    def mean_seconds(self, runs: Sequence[range]) -> float:
        """Mean wall-clock time of runs of groups, in proportion to their generated tokens."""
        total = sum(cost.generated for cost in self.groups.values())
        used = sum(self.groups[group].generated for run in runs for group in run if group in self.groups)
        return self.seconds * used / len(runs) / total if total else self.seconds


def _unscored(tree: Tree, shape: Mcts | None) -> int:
    partly_scored = shape is not None and shape.back_up == "prefix"
    voting = {
        leaf.group for leaf in tree.leaves()
    }  # a group that an early stop cancelled has blocks that were never scored
    nodes = [node for node in tree.nodes[1:] if node.group in voting]
    return sum(node.value is None for node in nodes if node.state == "finished" or not partly_scored)


def leaf_texts(tokenizer: PreTrainedTokenizerBase, tree: Tree) -> list[str]:
    """The texts of the leaves, to be graded. A leaf that is not finished has none, and so is incomplete."""
    return [response_text(tokenizer, tree.path(leaf.id)) if leaf.state == "finished" else "" for leaf in tree.leaves()]


def leaf_rows(tree: Tree, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The column `leaves` of the table `searches`, from the verdict on each leaf."""
    return [
        {"node": leaf.id, "group": leaf.group, "value": leaf.value, **verdict._asdict()}
        for leaf, verdict in zip(tree.leaves(), verdicts, strict=True)
    ]
