"""The interface of engines: two async calls on tokens, `Policy.extend` and `Value.score`.

Roll-ins, roll-outs, search, evaluation and the endpoint use only these. A call has one sequence; the engine batches, caches and
schedules, so callers never wait in lockstep.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens

FinishReason = Literal["stop", "length"]
"""`stop`: an end-of-sequence or stop token was sampled. `length`: the token limit was reached."""


@dataclass
class SearchContext:
    """The search that a call belongs to; routing and retries depend on it.

    Attributes:
        name: of the search. Its calls share prefixes, so they are routed to the same engine.
        retryable: whether a call may be repeated on another engine if its engine dies.
        answered: kinds of engines that have answered a call of this search, so its prompt does not make them fail.
    """

    name: str
    retryable: bool = True
    answered: set[str] = field(default_factory=set)


SEARCH_CONTEXT: ContextVar[SearchContext | None] = ContextVar("SEARCH_CONTEXT", default=None)
"""The search of the current asyncio task."""


@dataclass(frozen=True)
class SamplingWithLogprobs(Sampling):
    """Sampling parameters of a call whose completion has the log-probability of each token."""


class Grammar(NamedTuple):
    """What a completion may be.

    Attributes:
        kind: `json`: JSON that fits a schema. `regex`: text that a regular expression matches.
        text: the JSON schema, or the regular expression.
    """

    kind: Literal["json", "regex"]
    text: str


@dataclass(frozen=True, kw_only=True)
class SamplingWithGrammar(Sampling):
    """Sampling parameters of a call whose completion fits `grammar`, unless `max_tokens` cuts it off."""

    grammar: Grammar


class Score(NamedTuple):
    """A value model's score of a prefix.

    Attributes:
        value: P(the finished answer will be correct), at the last token.
        probs: class probabilities (incorrect, correct, incomplete); empty for a value model without classes.
        scored: tokens that the engine forwarded; the others were cached.
    """

    value: float
    probs: tuple[float, ...] = ()
    scored: int = 0


class Completion(NamedTuple):
    """A policy's continuation of a prefix.

    Attributes:
        tokens: new tokens only, with the end-of-sequence token.
        finished: whether the last token is an end-of-sequence token.
        finish_reason: why generation ended.
        mean_logprob: mean natural log-probability of the tokens; 0.0 without tokens, NaN if the engine does not compute it.
        prefilled: tokens of the prefix that the engine forwarded; the others were cached.
        score: of the prefix with these tokens, from an engine whose policy has a value head; None otherwise.
        logprobs: natural log-probability of each token under the model, before temperature, penalties and truncation change its
            distribution; None without `SamplingWithLogprobs`.
    """

    tokens: Tokens
    finished: bool
    finish_reason: FinishReason
    mean_logprob: float
    prefilled: int = 0
    score: Score | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass
class Usage:
    """Tokens that an engine forwarded since it started, or that a search needed.

    Attributes:
        generated: tokens that the policy sampled.
        prefilled: prefix tokens that the policy forwarded.
        cached: prefix tokens that came from a prefix cache, of either engine.
        scored: tokens that the value model forwarded.
    """

    generated: int = 0
    prefilled: int = 0
    cached: int = 0
    scored: int = 0


def room_for(prefix: Sequence[int], max_tokens: int, max_model_len: int) -> int:
    """Number of tokens that an engine may add to `prefix`: `max_tokens`, or fewer if `max_model_len` is reached first.

    Raises:
        ValueError: `prefix` is empty, or as long as `max_model_len`.
    """
    room = max_model_len - len(prefix)
    if not len(prefix) or room < 1:
        raise ValueError(
            f"prefix has {len(prefix)} tokens; an extension needs 1 to {max_model_len - 1} "
            f"(max_model_len - 1): shorten the prefix or raise Engine.max_model_len"
        )
    return min(max_tokens, room)


class Interrupted(asyncio.CancelledError):
    """A cancelled call of `Policy.extend`, from an engine that knows what it had sampled by then.

    Attributes:
        completion: those tokens; `finish_reason` is `length`.
    """

    def __init__(self, completion: Completion) -> None:
        super().__init__()
        self.completion = completion


class EngineDied(RuntimeError):
    """The engine of a call is gone. The call may be repeated on another engine."""


class EngineFailed(EngineDied):
    """The engine failed while it held the call. The call may be the cause, so it must not be repeated."""


class UnusableGrammar(ValueError):
    """The engine can't compile the grammar of a call, or can't keep to it."""


@contextmanager
def refused_grammars(sampling: Sampling, *errors: type[Exception]) -> Iterator[None]:
    """Raise `UnusableGrammar` if an engine refuses a call that has a grammar, with ValueError or one of `errors`."""
    refusals: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except refusals as error:
        if isinstance(sampling, SamplingWithGrammar):
            raise UnusableGrammar(str(error)) from error
        raise


class UnknownToken(ValueError):
    """A call has a token id outside the model's vocabulary. It was refused before it reached the engine."""


def check_tokens(tokens: Tokens, vocabulary: int) -> None:
    """Check that a model can read these ids. An id beyond the rows of its embedding would end the engine, with all its calls.

    Raises:
        UnknownToken: an id is not an integer from 0 to `vocabulary` - 1.
    """
    try:
        ids = array("q", tokens)
    except (TypeError, OverflowError):
        ids = None
    if ids is None or (ids and not 0 <= min(ids) <= max(ids) < vocabulary):
        wrong = next(i for i, id in enumerate(tokens) if not hasattr(id, "__index__") or not 0 <= id < vocabulary)
        raise UnknownToken(
            f"token {wrong} has the id {tokens[wrong]}; ids are 0 to {vocabulary - 1}: send tokens of this model"
        )


def check_scored(tokens: Tokens, max_model_len: int, vocabulary: int) -> None:
    """Check that an engine can score these tokens.

    Raises:
        ValueError: there are none, or more than `max_model_len`.
        UnknownToken: an id is outside the vocabulary.
    """
    if not 0 < len(tokens) <= max_model_len:
        raise ValueError(
            f"sequence has {len(tokens)} tokens; scoring takes 1 to {max_model_len} (max_model_len): "
            f"shorten it or raise Engine.max_model_len"
        )
    check_tokens(tokens, vocabulary)


class Policy(Protocol):
    """Extends a prefix."""

    usage: Usage

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample at most `sampling.max_tokens` tokens after `prefix`. Equal seeds give equal tokens."""
        ...


class Value(Protocol):
    """Scores a prefix."""

    usage: Usage

    async def score(self, tokens: Tokens) -> Score:
        """P(correct) at the last token of `tokens`, which start with the prompt."""
        ...

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """P(correct) after each token. By default one call for each prefix; an engine may do it in one forward pass."""
        return list(await asyncio.gather(*(self.score(tokens[:end]) for end in range(1, len(tokens) + 1))))
