"""Stream a search as server-sent events: OpenAI's chunks for the answer and, if requested, an event for each block.

In: a running search. Out: frames. The vote ends the search, so the answer's chunks come last; until then comments keep the
connection open. As at other servers of reasoning models, the thought is in `reasoning_content`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vgs_ray.data.tokens import Tokens
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search.tree import Listener, Node
from vgs_ray.serve.error_handlers import api_error
from vgs_ray.serve.events import DONE, HEARTBEAT, NODE, START, Chunks, Delta, StartEvent, frame, node_event
from vgs_ray.serve.replies import search_reply, usage_reply
from vgs_ray.serve.search_result import SearchResult, split_thought

HEARTBEAT_S = 10.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection open."""
CHUNK_CHARS = 2048
ROLE: Delta = {"role": "assistant", "content": ""}

Solve = Callable[[Listener | None], Awaitable[SearchResult]]
TimedNodes = asyncio.Queue[tuple[Node, float] | None]
"""Blocks with the seconds since the request; None ends them."""


class EventStream(StreamingResponse):
    """Frames as a response. `place` is closed at its end, even if the client disconnects before the first frame."""

    def __init__(self, frames: AsyncIterator[str], place: AbstractContextManager[object]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.place:
            await super().__call__(scope, receive, send)


class Stream:
    """The events of one request.

    Args:
        chunks: builds the chunks of the reply.
        include_usage: end with a chunk that has the usage and no choices.
        decode: decodes a block's tokens; None sends no events for blocks.
        start: the first event, if events are requested.
    """

    def __init__(
        self,
        chunks: Chunks,
        include_usage: bool,
        decode: Callable[[Tokens], str] | None = None,
        start: StartEvent | None = None,
    ) -> None:
        self.chunks, self.include_usage, self.decode, self.start = chunks, include_usage, decode, start

    async def frames(self, solve: Solve) -> AsyncIterator[str]:
        """Run the search and yield its frames. Closing the iterator cancels the search."""
        nodes: TimedNodes = asyncio.Queue()
        began = time.monotonic()

        def listen(node: Node) -> None:
            nodes.put_nowait((node, time.monotonic() - began))

        search = asyncio.ensure_future(solve(listen if self.decode else None))
        search.add_done_callback(lambda _: nodes.put_nowait(None))
        try:
            if self.start:
                yield frame(self.start, START)
            yield frame(self.chunks.delta(0, ROLE))
            async for blocks in self._blocks(nodes):
                yield blocks
            for chunk in self._answer(search.result()):
                yield chunk
        except Exception as error:  # the status was sent long ago, so the error goes into the stream
            yield frame(api_error(error).body)
        finally:
            search.cancel()

    async def _blocks(self, nodes: TimedNodes) -> AsyncIterator[str]:
        """Events of all blocks until None. Blocks that arrive together are sent together, in one message of the server."""
        while True:
            try:
                batch = [await asyncio.wait_for(nodes.get(), HEARTBEAT_S)]
            except TimeoutError:
                yield HEARTBEAT
                continue
            while not nodes.empty():
                batch.append(nodes.get_nowait())
            if events := "".join(self._block(*timed_node) for timed_node in batch if timed_node):
                yield events
            if batch[-1] is None:
                return

    def _block(self, node: Node, seconds: float) -> str:
        assert self.decode is not None, "without `decode` the search has no listener"
        # `decode` adds the end of a thought if the prompt does not open one; it is not part of the block.
        mark = END_OF_THOUGHT if self.decode(()) == END_OF_THOUGHT else ""
        return frame(node_event(node, self.decode(node.tokens).removeprefix(mark), seconds), NODE)

    def _answer(self, result: SearchResult) -> Iterator[str]:
        for index in range(1, len(result.choices)):
            yield frame(self.chunks.delta(index, ROLE))
        for index, leaf in enumerate(result.choices):
            for delta in self._deltas(result.leaves[leaf].text, result.refusal):
                yield frame(self.chunks.delta(index, delta))
            if result.logprobs:
                yield frame(self.chunks.logprobs(index, result))
        for index, leaf in enumerate(result.choices):
            last = self.chunks.delta(index, {}, result.finish_reason(leaf))
            if leaf == result.selected:
                last["vgs_ray"] = search_reply(result)
            yield frame(last)
        if self.include_usage:
            yield frame(self.chunks.usage(usage_reply(result)))
        yield DONE

    def _deltas(self, text: str, refusal: str | None) -> Iterator[Delta]:
        thought, content = ("", text) if self.chunks.text else split_thought(text)
        for start in range(0, len(thought), CHUNK_CHARS):
            yield {"reasoning_content": thought[start : start + CHUNK_CHARS]}
        if refusal:
            yield {"refusal": refusal}
            return
        for start in range(0, len(content), CHUNK_CHARS):
            yield {"content": content[start : start + CHUNK_CHARS]}
