"""The reply to a score request: its type, which also describes it in `/openapi.json`, and the function that builds it."""

from __future__ import annotations

import math
from typing import Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict


@with_config(extra="forbid")
class SequenceScores(TypedDict):
    """P(correct) at the last token or after each token; `tokens` has their texts if the request asks for them."""

    index: int
    object: Literal["score"]
    values: list[float | None]
    tokens: NotRequired[list[str]]


@with_config(extra="forbid")
class ScoreUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


@with_config(extra="forbid")
class ScoreReply(TypedDict):
    object: Literal["list"]
    model: str
    data: list[SequenceScores]
    usage: ScoreUsage


def score_reply(values: list[list[float]], model: str, tokens: int, texts: list[list[str]] | None = None) -> ScoreReply:
    """The reply to a score request.

    Args:
        values: for each sequence; NaN becomes null.
        model: the requested model.
        tokens: number of tokens in all sequences.
        texts: of the tokens that have a value, for each sequence.
    """
    data: list[SequenceScores] = [
        {"index": index, "object": "score", "values": [None if math.isnan(value) else value for value in row]}
        for index, row in enumerate(values)
    ]
    for scores, pieces in zip(data, texts or [], strict=False):
        scores["tokens"] = pieces
    return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
