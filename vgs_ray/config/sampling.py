"""How a policy samples."""

from __future__ import annotations

from dataclasses import dataclass

from vgs_ray.config.ranges import NonNegativeFloat, NonNegativeInt, Penalty, PositiveInt, PositiveShare, Share


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a policy."""

    temperature: NonNegativeFloat = 0.6
    """Softmax temperature; 0 is greedy decoding."""
    top_p: PositiveShare = 0.95
    """Probability mass of nucleus sampling."""
    max_tokens: PositiveInt = 16384
    """Longest response in tokens, without its prompt."""
    stop_token_ids: tuple[NonNegativeInt, ...] = ()
    """Tokens that end a block. The token itself is kept."""
    top_k: NonNegativeInt = 0
    """Number of most probable tokens to sample from; 0 means all."""
    min_p: Share = 0.0
    """Minimum probability of a token, relative to the most probable one; 0 disables it."""
    repetition_penalty: Penalty = 1.0
    """Divides positive and multiplies negative logits of tokens that occur in the prompt or the response (arXiv 1909.05858); 1
    disables it."""
