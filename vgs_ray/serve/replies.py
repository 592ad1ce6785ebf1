"""The reply to a chat completion, in the OpenAI layout.

In: what a search `SearchResult`. Out: plain JSON values, with the search's own numbers under `vgs_ray`.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from vgs_ray.serve.search_result import SearchResult, split_thought


def chat_completion(found: SearchResult, model: str) -> dict[str, Any]:
    """`usage` counts every generated token, those of pruned blocks too."""
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices(found, lambda text: {"message": _message(text)}),
        "usage": usage_of(found),
        "vgs_ray": search_details(found),
    }


def text_completion(found: SearchResult, model: str) -> dict[str, Any]:
    """The same in the layout of completions: the text as it was written."""
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices(found, lambda text: {"text": text}),
        "usage": usage_of(found),
        "vgs_ray": search_details(found),
    }


def choices(found: SearchResult, said: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as were asked for, the chosen answer first; a deadline may leave fewer."""
    return [
        {"index": index, **said(found.leaves[leaf].text), "finish_reason": found.finish_reason(leaf), "logprobs": None}
        for index, leaf in enumerate(found.choices)
    ]


def _message(text: str) -> dict[str, Any]:
    thought, content = split_thought(text)
    return {"role": "assistant", "content": content, "reasoning_content": thought, "refusal": None}


def scores(found: list[list[float]], model: str, tokens: int, texts: list[list[str]] | None = None) -> dict[str, Any]:
    """Values by sequence, and the texts of their tokens where there are some; a value that is no number is null."""
    data: list[dict[str, Any]] = [
        {"index": index, "object": "score", "values": [None if math.isnan(value) else value for value in values]}
        for index, values in enumerate(found)
    ]
    for row, pieces in zip(data, texts or [], strict=False):
        row["tokens"] = pieces
    return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def usage_of(found: SearchResult) -> dict[str, Any]:
    """Prompt once; every generated token, those of pruned blocks too; what caches held; what the value model read."""
    generated = found.usage.generated
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": found.prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": found.usage.cached},
        "scored_tokens": found.usage.scored,
    }


def search_details(found: SearchResult) -> dict[str, Any]:
    """The chosen answer and its value, the vote, the leaves, tokens, FLOPs and time."""
    chosen = found.leaves[found.chosen]
    return {
        "answer": chosen.answer,
        "value": chosen.value,
        "node": str(chosen.node),
        "votes": [
            {"answer": found.leaves[vote.leaf].answer, "weight": vote.weight, "leaves": len(vote.leaves)}
            for vote in found.votes
        ],
        "leaves": [
            {
                "answer": leaf.answer,
                "value": leaf.value,
                "group": leaf.group,
                "tokens": leaf.tokens,
                "finish_reason": leaf.finish_reason,
            }
            for leaf in found.leaves
        ],
        "usage": asdict(found.usage),
        "flops": found.flops,
        "seed": found.seed,
        "seconds": round(found.seconds, 3),
        "warnings": list(found.warnings),
    }
