"""Reply bodies: their types, which also describe them in `/openapi.json`, and the functions that build them.

In: a `SearchResult` or scores. Out: JSON values in OpenAI's format, with the numbers of the search under `vgs_ray`.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from typing import Any, Literal

from pydantic import with_config
from typing_extensions import TypedDict

from vgs_ray.engines.interface import FinishReason
from vgs_ray.serve.logprob_replies import ChatLogprobs, TextLogprobs, chat_logprobs, text_logprobs
from vgs_ray.serve.search_result import SearchResult


@with_config(extra="forbid")
class CachedTokens(TypedDict):
    cached_tokens: int


@with_config(extra="forbid")
class UsageReply(TypedDict):
    """Tokens of a search: the prompt counted once, all generated tokens including those of pruned blocks, and the tokens that
    the value model forwarded."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    scored_tokens: int


@with_config(extra="forbid")
class VoteReply(TypedDict):
    """A class of equal answers, its weight, and its number of leaves."""

    answer: str
    weight: float
    leaves: int


@with_config(extra="forbid")
class LeafReply(TypedDict):
    """One answer of the search tree."""

    answer: str | None
    value: float | None
    group: int
    tokens: int
    finish_reason: FinishReason


@with_config(extra="forbid")
class EngineTokens(TypedDict):
    """Tokens as the engines counted them."""

    generated: int
    prefilled: int
    cached: int
    scored: int


@with_config(extra="forbid")
class SearchReply(TypedDict):
    """Details of the search: the selected answer and its value, the vote (the winner first), all leaves, and the cost.

    `share` is that of the weight of all votes. `probability` is P(the selected answer is correct) as the evaluation fitted it, or
    null. `abstained` is true if it does not reach `search.min_confidence`. `undecided` is true if another answer has almost the
    same weight. `warnings` lists changes to the request. `decided_after` is the number of groups whose vote ended the search
    early, or null.
    """

    answer: str | None
    value: float | None
    share: float | None
    probability: float | None
    abstained: bool
    undecided: bool
    node: str
    votes: list[VoteReply]
    leaves: list[LeafReply]
    usage: EngineTokens
    flops: float | None
    seed: int
    seconds: float
    warnings: list[str]
    decided_after: int | None


@with_config(extra="forbid")
class MessageReply(TypedDict):
    role: Literal["assistant"]
    content: str
    reasoning_content: str
    refusal: str | None


@with_config(extra="forbid")
class ChatChoice(TypedDict):
    index: int
    message: MessageReply
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None


@with_config(extra="forbid")
class TextChoice(TypedDict):
    index: int
    text: str
    finish_reason: FinishReason
    logprobs: TextLogprobs | None


@with_config(extra="forbid")
class ChatReply(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageReply
    vgs_ray: SearchReply


@with_config(extra="forbid")
class TextReply(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageReply
    vgs_ray: SearchReply


@with_config(extra="forbid")
class ModelReply(TypedDict):
    """A named search preset; `search` has the options that it sets."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    search: dict[str, Any]


@with_config(extra="forbid")
class ModelsReply(TypedDict):
    object: Literal["list"]
    data: list[ModelReply]


@with_config(extra="forbid")
class Health(TypedDict):
    """State of each engine: `ok` or a description of the problem."""

    status: Literal["ok", "unhealthy"]
    engines: dict[str, str]


@with_config(extra="forbid")
class Ready(TypedDict):
    status: Literal["ready"]


def chat_reply(result: SearchResult, model: str) -> ChatReply:
    """The reply to a chat completion. A deadline can leave fewer choices than requested."""
    choices: list[ChatChoice] = [
        {
            "index": index,
            "message": _message(result, index),
            "finish_reason": result.finish_reason(index),
            "logprobs": chat_logprobs(result, index),
        }
        for index in range(len(result.choices))
    ]
    return {
        "id": chat_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage_reply(result),
        "vgs_ray": search_reply(result),
    }


def _message(result: SearchResult, choice: int) -> MessageReply:
    thought, content = result.thought_and_content(choice)
    content = "" if result.refusal else content
    return {"role": "assistant", "content": content, "reasoning_content": thought, "refusal": result.refusal}


def text_reply(result: SearchResult, model: str) -> TextReply:
    """The reply to a completion: the generated text, unchanged. A deadline can leave fewer choices than requested."""
    choices: list[TextChoice] = [
        {
            "index": index,
            "text": result.leaves[leaf].text,
            "finish_reason": result.finish_reason(index),
            "logprobs": text_logprobs(result, index),
        }
        for index, leaf in enumerate(result.choices)
    ]
    return {
        "id": text_id(),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage_reply(result),
        "vgs_ray": search_reply(result),
    }


def chat_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def text_id() -> str:
    return f"cmpl-{secrets.token_hex(12)}"


def usage_reply(result: SearchResult) -> UsageReply:
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.usage.generated,
        "total_tokens": result.prompt_tokens + result.usage.generated,
        "prompt_tokens_details": {"cached_tokens": result.usage.cached},
        "scored_tokens": result.usage.scored,
    }


def search_reply(result: SearchResult) -> SearchReply:
    selected = result.leaves[result.selected]
    usage: Any = asdict(result.usage)
    return {
        "answer": selected.answer,
        "value": selected.value,
        "share": result.share,
        "probability": result.probability,
        "abstained": result.refusal is not None,
        "undecided": result.undecided,
        "node": str(selected.node),
        "votes": [
            {"answer": str(result.leaves[vote.leaf].answer), "weight": vote.weight, "leaves": len(vote.leaves)}
            for vote in result.votes
        ],
        "leaves": [
            {
                "answer": leaf.answer,
                "value": leaf.value,
                "group": leaf.group,
                "tokens": leaf.tokens,
                "finish_reason": leaf.finish_reason,
            }
            for leaf in result.leaves
        ],
        "usage": usage,
        "flops": result.flops,
        "seed": result.seed,
        "seconds": round(result.seconds, 3),
        "warnings": list(result.warnings),
        "decided_after": result.decided_after,
    }
