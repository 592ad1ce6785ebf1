"""The losses of a preference pair beside DPO, each as a vector over the pairs, and the squared error of paths.

SVPO (arXiv 2406.10858) trains the value by the squared error to Q and by a margin loss. The paper's weights are not known, so
they are fields of `vgs_ray.config.Tune`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PairLosses(NamedTuple):
    """Losses of (pairs,) pairs.

    Attributes:
        sft: mean negative log-probability of the tokens of chosen.
        squared_error: mean of the squared errors of both values.
        margin: margin loss of the values.
    """

    sft: Tensor
    squared_error: Tensor
    margin: Tensor

    def total(
        self, sft_weight: float, value_weight: float, margin_weight: float, path_errors: Tensor | None = None
    ) -> Tensor:
        """The weighted sum, averaged over the pairs. A weight of 0 leaves its loss out.

        Args:
            sft_weight, value_weight, margin_weight: weights of the losses.
            path_errors: (paths,) squared errors of paths. The squared error is then averaged over all sequences: the two sides of
                each pair, and the paths.
        """
        errors = self.squared_error if path_errors is None else torch.cat([self.squared_error.repeat(2), path_errors])
        terms = ((self.sft, sft_weight), (errors, value_weight), (self.margin, margin_weight))
        return sum((weight * loss.mean() for loss, weight in terms if weight), start=self.sft.new_zeros(()))


def pair_losses(log_probs: Tensor, mask: Tensor, values: Tensor, q: Tensor, margin: float) -> PairLosses:
    """The losses of a batch, whose rows are the chosen sides, followed by the rejected sides in the same order.

    Args:
        log_probs: (2 * pairs, length) log-probability of each token of a side; 0 elsewhere.
        mask: (2 * pairs, length) 1 on the tokens of a side.
        values: (2 * pairs,) values at the last token of each side, in [-1, 1].
        q: (2 * pairs,) their targets.
        margin: margin between the values of a pair.
    """
    (chosen, rejected), (q_chosen, q_rejected) = values.chunk(2), q.chunk(2)
    sft = -log_probs.chunk(2)[0].sum(1) / mask.chunk(2)[0].sum(1)
    errors = squared_error(chosen, rejected, q_chosen, q_rejected)
    return PairLosses(sft, errors, margin_loss(chosen, rejected, margin))


def squared_error(chosen: Tensor, rejected: Tensor, q_chosen: Tensor, q_rejected: Tensor) -> Tensor:
    """((V(chosen) - Q(chosen))^2 + (V(rejected) - Q(rejected))^2) / 2. All arguments and the result are (pairs,)."""
    return ((chosen - q_chosen) ** 2 + (rejected - q_rejected) ** 2) / 2


def path_errors(values: Tensor, q: Tensor, rows: Tensor, paths: int) -> Tensor:
    """The mean over the nodes of each path of (V - Q)^2, (paths,).

    Args:
        values: (nodes,) values of all nodes.
        q: (nodes,) their targets.
        rows: (nodes,) path of each node. Each path has a node.
        paths: number of paths.
    """
    total = values.new_zeros(paths).index_add(0, rows, (values - q) ** 2)
    return total / torch.bincount(rows, minlength=paths)


def margin_loss(chosen: Tensor, rejected: Tensor, margin: float) -> Tensor:
    """max(0, margin - (V(chosen) - V(rejected))). The values and the result are (pairs,)."""
    return torch.relu(margin - (chosen - rejected))
