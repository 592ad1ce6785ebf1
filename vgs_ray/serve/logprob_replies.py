"""Log-probabilities in replies: their types, and the functions that build them, for chat completions and completions."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from pydantic import with_config
from typing_extensions import TypedDict

from vgs_ray.serve.search_result import SearchResult


@with_config(extra="forbid")
class TokenReply(TypedDict):
    """A token's text, natural log-probability, and text in UTF-8."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any]


@with_config(extra="forbid")
class ChatLogprobs(TypedDict):
    """The tokens of the content."""

    content: list[TokenReply]
    refusal: None


@with_config(extra="forbid")
class TextLogprobs(TypedDict):
    """The tokens of a completion; `text_offset` has the index of each one's first character."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None
    text_offset: list[int]


def chat_logprobs(result: SearchResult, choice: int) -> ChatLogprobs | None:
    """The log-probabilities of a choice; None if they were not requested."""
    if not result.logprobs:
        return None
    content: list[TokenReply] = [
        {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
        for text, logprob in result.logprobs[choice]
    ]
    return {"content": [] if result.refusal else content, "refusal": None}


def text_logprobs(result: SearchResult, choice: int) -> TextLogprobs | None:
    """The log-probabilities of a choice of a completion; None if they were not requested."""
    if not result.logprobs:
        return None
    tokens = result.logprobs[choice]
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": None,
        "text_offset": list(accumulate((len(token.text) for token in tokens), initial=0))[: len(tokens)],
    }
