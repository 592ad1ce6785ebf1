"""A search as server-sent events: OpenAI's chunks for the answer and, where asked for, an event for each block.

In: a running search. Out: text frames. The thought goes into `reasoning_content`, as reasoning models' servers do. The vote
decides last, so the answer's chunks come at the end; until then comments keep the connection open.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vgs_ray.data.tokens import Tokens
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search.tree import Listener, Node
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.replies import search_details, usage_of
from vgs_ray.serve.search_result import SearchResult, split_thought
from vgs_ray.serve.search_spec import SearchSpec

DONE = "data: [DONE]\n\n"
ROLE = {"role": "assistant", "content": ""}
START, NODE = "vgs_ray.start", "vgs_ray.node"
ALIVE_S = 10.0
"""Seconds of silence after which a comment tells proxies that somebody is there."""
PIECE = 2048
"""Characters of one chunk of the answer."""

Solve = Callable[[Listener | None], Awaitable[SearchResult]]


class EventStream(StreamingResponse):
    """Frames as a reply; `room` is closed when it ends, also where the client was gone before the first frame."""

    def __init__(self, frames: AsyncIterator[str], room: AbstractContextManager[object]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.room:
            await super().__call__(scope, receive, send)


class Stream:
    """The events of one request.

    Args:
        model: named in each chunk.
        include_usage: end with a chunk that has the usage and no choice.
        decode: block to text where events for blocks are asked for, else None.
        failed: what a client may know of an error.
        text: in the layout of completions, not of chats.
        start: what the first event says, where events are asked for.
    """

    def __init__(
        self,
        model: str,
        include_usage: bool,
        decode: Callable[[Tokens], str] | None,
        failed: Callable[[Exception], ApiError],
        text: bool = False,
        start: dict[str, Any] | None = None,
    ) -> None:
        self.include_usage, self.decode, self.failed, self.text = include_usage, decode, failed, text
        self.start = start
        self.same = {
            "id": f"{'cmpl' if text else 'chatcmpl'}-{secrets.token_hex(12)}",
            "object": "text_completion" if text else "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    async def frames(self, solve: Solve) -> AsyncIterator[str]:
        """Run the search; it is cancelled when nobody reads on."""
        nodes: asyncio.Queue[tuple[Node, float] | None] = asyncio.Queue()
        began = time.monotonic()

        def heard(node: Node) -> None:
            nodes.put_nowait((node, time.monotonic() - began))

        task = asyncio.ensure_future(solve(heard if self.decode else None))
        task.add_done_callback(lambda _: nodes.put_nowait(None))
        try:
            if self.start:
                yield _event(START, self.start)
            yield self._chunk(ROLE)
            async for frame in self._blocks(nodes):
                yield frame
            for frame in self._answer(task.result()):
                yield frame
        except Exception as error:  # the status is long sent: the error goes where clients look for it
            yield f"data: {json.dumps(self.failed(error).body)}\n\n"
        finally:
            task.cancel()

    async def _blocks(self, nodes: asyncio.Queue[tuple[Node, float] | None]) -> AsyncIterator[str]:
        """Nodes that come together leave as one frame: every frame is a message through Ray Serve's proxy."""
        while True:
            try:
                heard = [await asyncio.wait_for(nodes.get(), ALIVE_S)]
            except TimeoutError:
                yield ": searching\n\n"
                continue
            while not nodes.empty():
                heard.append(nodes.get_nowait())
            if told := "".join(_event(NODE, self._node(*each)) for each in heard if each):
                yield told
            if heard[-1] is None:
                return

    def _node(self, node: Node, seconds: float) -> dict[str, Any]:
        assert self.decode is not None, "nobody listens to nodes otherwise"
        # Clients read a chunk's `id` as a string, and some fail on a number.
        told: dict[str, Any] = {"id": str(node.id), "parent": str(node.parent)}
        told |= {name: getattr(node, name) for name in ("group", "round", "index", "value", "state")}
        # Where no thought is open, text is decoded behind the end of one; a block is only its own text.
        mark = END_OF_THOUGHT if self.decode(()) == END_OF_THOUGHT else ""
        text = self.decode(node.tokens).removeprefix(mark)
        size = len(node.tokens)
        return {**told, "seconds": round(seconds, 4), "tokens": size, "token_ids": node.tokens, "text": text}

    def _answer(self, found: SearchResult) -> list[str]:
        frames = [
            self._chunk({name: text[at : at + PIECE]}, index)
            for index, leaf in enumerate(found.choices)
            for name, text in self._parts(found.leaves[leaf].text)
            for at in range(0, len(text), PIECE)
        ]
        frames = [*(self._chunk(ROLE, index) for index in range(1, len(found.choices))), *frames]
        for index, leaf in enumerate(found.choices):
            details = {"vgs_ray": search_details(found)} if leaf == found.chosen else {}
            frames.append(self._chunk({}, index, found.finish_reason(leaf), **details))
        if self.include_usage:
            frames.append(f"data: {json.dumps({**self.same, 'choices': [], 'usage': usage_of(found)})}\n\n")
        return [*frames, DONE]

    def _parts(self, text: str) -> list[tuple[str, str]]:
        thought, content = ("", text) if self.text else split_thought(text)
        return [("reasoning_content", thought), ("content", content)]

    def _chunk(self, delta: dict[str, Any], index: int = 0, finish: str | None = None, **more: Any) -> str:
        said = {"text": delta.get("content", "")} if self.text else {"delta": delta}
        choice = {"index": index, **said, "finish_reason": finish, "logprobs": None}
        return f"data: {json.dumps({**self.same, 'choices': [choice], **more})}\n\n"


def start_of(spec: SearchSpec, prompt: Tokens, position: int) -> dict[str, Any]:
    """The prompt's tokens, the search as it will run, with every default filled in, and its position in the queue."""
    sizes = {name: getattr(spec.beam, name) for name in ("keep", "branch", "block", "groups")}
    search = {
        "method": spec.method,
        "budget": spec.budget,
        **(sizes if spec.method == "beam" else {}),  # only a beam has them
        "select": spec.select,
        "max_tokens": spec.sampling.max_tokens,
        "seed": spec.seed,
        "deadline_s": spec.deadline_s,
    }
    return {"prompt_token_ids": prompt, "search": search, "queue_position": position}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
