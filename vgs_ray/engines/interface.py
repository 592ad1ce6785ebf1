"""Engines: two async calls on tokens. Roll-ins, roll-outs, search, evaluation and the endpoint use nothing else.

One sequence a call. Batching, caching and scheduling are the engine's business, so callers never wait in lockstep.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens

FinishReason = Literal["stop", "length"]
"""`stop`: the policy ended its answer (end-of-sequence), or a block met a delimiter. `length`: the token limit."""


@dataclass
class SearchCalls:
    """The search that a call belongs to.

    Attributes:
        name: calls of one search share prefixes: what routes them keeps them on one engine.
        repeated: whether calls may be asked of another engine where theirs dies.
        answered: kinds of engines that have answered a call of it, so that its prompt is known to do them no harm.
    """

    name: str
    repeated: bool = True
    answered: set[str] = field(default_factory=set)


SEARCH: ContextVar[SearchCalls | None] = ContextVar("SEARCH", default=None)
"""Of the calls that are made now."""


class Completion(NamedTuple):
    """What a policy wrote after a prefix.

    Attributes:
        tokens: new tokens only; the end-of-sequence token is kept.
        finished: the policy ended its answer with an end-of-sequence token.
        finish_reason: why the block ended.
        mean_logprob: mean natural log-probability of the tokens, 0.0 when there are none; nan where the engine was told
            not to compute it.
        prefilled: tokens of the prefix that the engine forwarded; the others came from its cache.
    """

    tokens: Tokens
    finished: bool
    finish_reason: FinishReason
    mean_logprob: float
    prefilled: int = 0


class Score(NamedTuple):
    """A value model's reading of a prefix.

    Attributes:
        value: P(the finished answer will be correct), at the last token.
        probs: class probabilities (incorrect, correct, incomplete); empty for a value without classes.
        scored: tokens that the engine forwarded for it; the others came from its cache.
    """

    value: float
    probs: tuple[float, ...] = ()
    scored: int = 0


@dataclass
class Usage:
    """Tokens that an engine forwarded since it started, or for one search.

    Attributes:
        generated: tokens sampled by the policy.
        prefilled: prompt tokens forwarded by the policy (not found in its cache).
        cached: prompt tokens that came from a prefix cache, both engines.
        scored: tokens forwarded by the value engine (not found in its cache).
    """

    generated: int = 0
    prefilled: int = 0
    cached: int = 0
    scored: int = 0


def room_for(prefix: Sequence[int], max_tokens: int, max_model_len: int) -> int:
    """Tokens that an engine may add to `prefix`: at most `max_tokens`, fewer where `max_model_len` leaves less.

    Raises:
        ValueError: `prefix` is empty or leaves no room.
    """
    room = max_model_len - len(prefix)
    if not len(prefix) or room < 1:
        raise ValueError(
            f"prefix has {len(prefix)} tokens; an extension needs 1 to {max_model_len - 1} "
            f"(max_model_len - 1): shorten the prefix or raise Engine.max_model_len"
        )
    return min(max_tokens, room)


class EngineDied(RuntimeError):
    """The engine behind a call is gone; the call may be repeated on another one."""


class EngineFailed(EngineDied):
    """The engine failed while it held the call, which may be what it failed of; others may be repeated, this one may not."""


class UnknownToken(ValueError):
    """A call has a token id that the model does not have; the engine has not seen it."""


def check_tokens(tokens: Tokens, vocabulary: int) -> None:
    """Whether a model can read these ids: one at or above the rows of its embedding ends the engine, with all its calls.

    Raises:
        UnknownToken: an id is no integer, or not in 0 to `vocabulary` - 1.
    """
    try:
        ids = array("q", tokens)
    except (TypeError, OverflowError):
        ids = None
    if ids is None or (ids and not 0 <= min(ids) <= max(ids) < vocabulary):
        at = next(at for at, id in enumerate(tokens) if not hasattr(id, "__index__") or not 0 <= id < vocabulary)
        raise UnknownToken(
            f"token {at} has the id {tokens[at]}; ids are 0 to {vocabulary - 1}: send tokens of this model"
        )


class Policy(Protocol):
    """Extends a prefix."""

    usage: Usage

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample a continuation of `prefix` of at most `sampling.max_tokens` tokens, reproducible from `seed`."""
        ...


class Value(Protocol):
    """Scores a prefix."""

    usage: Usage

    async def score(self, tokens: Tokens) -> Score:
        """P(correct) at the last of `tokens`, which start with the prompt."""
        ...

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """P(correct) after each of `tokens`. By a call for each prefix, unless the engine reads all of them in one pass."""
        return list(await asyncio.gather(*(self.score(tokens[:end]) for end in range(1, len(tokens) + 1))))
