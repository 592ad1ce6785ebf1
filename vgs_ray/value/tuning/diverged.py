"""The error of a training whose loss or gradient is NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_IDS = 8


class TuneDivergedError(RuntimeError):
    """The loss or the gradient norm is NaN or infinite. It is raised on all workers.

    Args:
        what: `loss` or `gradient norm`.
        step: the optimizer step.
        suspects: ids of the pairs and paths with such a loss, or of all in the forward pass.
    """

    def __init__(self, what: str, step: int, suspects: Sequence[str]) -> None:
        more = f" and {len(suspects) - SHOWN_IDS:,} more" if len(suspects) > SHOWN_IDS else ""
        rows = (
            f", or check these rows of stage pairs: {', '.join(suspects[:SHOWN_IDS])}{more}"
            if suspects
            else " or tune.head_lr"
        )
        super().__init__(
            f"the {what} of step {step} is NaN or infinite; training can't continue from it: lower tune.lr{rows}"
        )
