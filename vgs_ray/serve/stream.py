"""Stream a search as server-sent events: OpenAI's for the answer and, if requested, an event for each block.

In: a running search. Out: frames. The vote ends the search, so the answer comes last; until then comments keep the
connection open. As at other servers of reasoning models, the thought is in `reasoning_content`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vgs_ray.data.tokens import Tokens
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search.tree import Listener, Node
from vgs_ray.serve.error_handlers import api_error
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.events import HEARTBEAT, NODE, START, StartEvent, frame, node_event
from vgs_ray.serve.search_result import SearchResult

HEARTBEAT_S = 10.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection open."""

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


class Format(Protocol):
    """The frames of a protocol around the blocks of a search."""

    def opening(self) -> Iterator[str]:
        """Frames before the search."""
        ...

    def closing(self, result: SearchResult) -> Iterator[str]:
        """Frames after the vote."""
        ...

    def failure(self, error: ApiError) -> str:
        """The last frame of a search that failed."""
        ...


class Stream:
    """The events of one request.

    Args:
        layout: of the request's route.
        decode: decodes a block's tokens; None sends no events for blocks.
        start: the first event, if events are requested.
    """

    def __init__(
        self, layout: Format, decode: Callable[[Tokens], str] | None = None, start: StartEvent | None = None
    ) -> None:
        self.layout, self.decode, self.start = layout, decode, start

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
            for opened in self.layout.opening():
                yield opened
            async for blocks in self._blocks(nodes):
                yield blocks
            for closed in self.layout.closing(search.result()):
                yield closed
        except Exception as error:  # the status was sent long ago, so the error goes into the stream
            yield self.layout.failure(api_error(error))
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
