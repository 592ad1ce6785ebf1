"""Server-sent events of a stream: their types, which also describe them in `/openapi.json`, and the functions that build them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import FinishReason
from vgs_ray.search.tree import Node, State
from vgs_ray.serve.errors import ErrorReply
from vgs_ray.serve.logprob_replies import ChatLogprobs, TextLogprobs, chat_logprobs, text_logprobs
from vgs_ray.serve.replies import SearchReply, UsageReply, chat_id, text_id
from vgs_ray.serve.search_result import SearchResult
from vgs_ray.serve.search_spec import SearchSpec

START, NODE = "vgs_ray.start", "vgs_ray.node"
DONE = "data: [DONE]\n\n"
HEARTBEAT = ": searching\n\n"
SHAPE = ("keep", "branch", "block", "groups", "align")


@with_config(extra="forbid")
class StartedSearch(TypedDict):
    """The search with every default filled in; only `beam` has `keep`, `branch`, `block`, `groups` and `align`."""

    method: str
    budget: int
    keep: NotRequired[int]
    branch: NotRequired[int]
    block: NotRequired[int]
    groups: NotRequired[int]
    align: NotRequired[bool]
    select: str
    confidence: float | None
    min_confidence: float | None
    max_tokens: int
    seed: int
    deadline_s: float | None


@with_config(extra="forbid")
class StartEvent(TypedDict):
    """`vgs_ray.start`: the prompt's tokens, the search, and its position in the queue (0: it runs)."""

    prompt_token_ids: Tokens
    search: StartedSearch
    queue_position: int


@with_config(extra="forbid")
class NodeEvent(TypedDict):
    """`vgs_ray.node`: a block of the search tree. The ids are strings, because clients read a chunk's `id` as a string."""

    id: str
    parent: str
    group: int
    round: int
    index: int
    value: float | None
    state: State
    seconds: float
    tokens: int
    token_ids: Tokens
    text: str


@with_config(extra="forbid")
class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str
    reasoning_content: str
    refusal: str


@with_config(extra="forbid")
class ChatChunkChoice(TypedDict):
    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None


@with_config(extra="forbid")
class TextChunkChoice(TypedDict):
    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: TextLogprobs | None


@with_config(extra="forbid")
class ChatChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[UsageReply]
    vgs_ray: NotRequired[SearchReply]


@with_config(extra="forbid")
class TextChunk(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: NotRequired[UsageReply]
    vgs_ray: NotRequired[SearchReply]


EventData = StartEvent | NodeEvent | ChatChunk | TextChunk | ErrorReply
"""JSON in the `data` field of an event; the last event of a stream has `[DONE]` instead."""


def start_event(spec: SearchSpec, seed: int, prompt: Tokens, queue_position: int) -> StartEvent:
    shape: Any = {name: getattr(spec.beam, name) for name in SHAPE} if spec.method == "beam" else {}
    search: StartedSearch = {
        "method": spec.method,
        "budget": spec.budget,
        **shape,
        "select": spec.select,
        "confidence": spec.confidence,
        "min_confidence": spec.min_confidence,
        "max_tokens": spec.sampling.max_tokens,
        "seed": seed,
        "deadline_s": spec.deadline_s,
    }
    return {"prompt_token_ids": prompt, "search": search, "queue_position": queue_position}


def node_event(node: Node, text: str, seconds: float) -> NodeEvent:
    """The event of a block.

    Args:
        node: the block.
        text: its decoded tokens.
        seconds: since the request.
    """
    return {
        "id": str(node.id),
        "parent": str(node.parent),
        "group": node.group,
        "round": node.round,
        "index": node.index,
        "value": node.value,
        "state": node.state,
        "seconds": round(seconds, 4),
        "tokens": len(node.tokens),
        "token_ids": node.tokens,
        "text": text,
    }


class Chunks:
    """Builds the chunks of one reply, which share an id.

    Args:
        model: the requested model.
        text: build chunks of completions instead of chat completions.
    """

    def __init__(self, model: str, text: bool) -> None:
        self.model, self.text = model, text
        self.id, self.created = text_id() if text else chat_id(), int(time.time())

    def delta(self, index: int, delta: Delta, finish_reason: FinishReason | None = None) -> ChatChunk | TextChunk:
        """A chunk of the choice with this index."""
        if not self.text:
            return self._chat([{"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}])
        text = delta.get("content", "")
        return self._text([{"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None}])

    def logprobs(self, index: int, result: SearchResult) -> ChatChunk | TextChunk:
        """A chunk with the log-probabilities of the choice with this index."""
        if not self.text:
            logprobs = chat_logprobs(result, index)
            return self._chat([{"index": index, "delta": {}, "finish_reason": None, "logprobs": logprobs}])
        return self._text(
            [{"index": index, "text": "", "finish_reason": None, "logprobs": text_logprobs(result, index)}]
        )

    def usage(self, usage: UsageReply) -> ChatChunk | TextChunk:
        """The last chunk, without choices."""
        chunk = self._text([]) if self.text else self._chat([])
        chunk["usage"] = usage
        return chunk

    def _chat(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _text(self, choices: list[TextChunkChoice]) -> TextChunk:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def frame(data: Mapping[str, Any], event: str = "") -> str:
    """One server-sent event; without a name it is a message."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n"
