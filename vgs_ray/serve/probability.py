"""The probability of a search's answer, and the searches for which it is known."""

from __future__ import annotations

from collections.abc import Sequence

from vgs_ray.search.answer_probability import FittedProbabilities
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.search_result import Leaf, Vote, vote_share
from vgs_ray.serve.search_spec import SearchSpec


def probability_of(
    fitted: FittedProbabilities | None, spec: SearchSpec, leaves: Sequence[Leaf], votes: Sequence[Vote]
) -> float | None:
    """P(the selected answer is correct); None for a search unlike those of the evaluation, or without a fit."""
    share, value = vote_share(votes), leaves[votes[0].leaf].value if votes else None
    if fitted is None or share is None or value is None or why_unknown(fitted, spec):
        return None
    of_search = fitted.of_search(spec.method, spec.beam, spec.sampling, spec.budget)
    return of_search.of(share, value, spec.budget) if of_search else None


def check_min_confidence(fitted: FittedProbabilities | None, spec: SearchSpec) -> None:
    """Check that the probability of the answer will be known, if the request depends on it.

    Raises:
        ApiError: 400 with the reason and the remedy.
    """
    if spec.min_confidence is None:
        return
    reason = why_unknown(fitted, spec)
    if spec.n > 1:
        reason = f"n is {spec.n}, and only the chosen answer has a probability: leave n out"
    if reason:
        raise ApiError(
            400, f"search.min_confidence is {spec.min_confidence:g}, which needs the probability of the chosen answer; "
            f"{reason}, or leave min_confidence out", "search.min_confidence", "probability_unknown",
        )  # fmt: skip


def why_unknown(fitted: FittedProbabilities | None, spec: SearchSpec) -> str:
    """Why the probability of the answer of such a search is unknown, with the remedy. Empty if it is known."""
    if fitted is None:
        return (
            "this server has no evaluation of its models: run `python -m pipelines.evaluate RECIPE`, which fits it, and "
            "start the server again"
        )
    if spec.raw:
        return "a prompt that is continued without chat template has none: use /v1/chat/completions"
    if not isinstance(spec.problem, str):
        return "a conversation has none: send the problem as the only message"
    if spec.stop or spec.confidence or spec.select != "weighted_majority":
        return (
            "it holds for whole searches with search.select 'weighted_majority': leave stop, search.confidence and "
            "search.select out"
        )
    low, high = fitted.budgets
    if not low <= spec.budget <= high:
        return f"the budget is {spec.budget}, and the evaluation had {low} to {high}: set search.budget"
    if spec.method not in fitted.by_explorer:
        return f"the evaluation had too few problems to fit it for method '{spec.method}': evaluate on more problems"
    if fitted.of_search(spec.method, spec.beam, spec.sampling, spec.budget) is None:
        return (
            "the evaluation had another shape of the beam or other sampling parameters: leave those fields and max_tokens "
            "out"
        )
    return ""
