"""`/v1/responses`: how a search becomes a response, or the named events of OpenAI's protocol around its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.serve.chat_format import pieces_of
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.events import frame
from vgs_ray.serve.responses_reply import (
    MessageItem,
    ReasoningItem,
    ResponseReply,
    ended_response,
    output_items,
    started_response,
)
from vgs_ray.serve.responses_request import ResponsesRequest
from vgs_ray.serve.search_result import SearchResult


class ResponsesFormat:
    """OpenAI's events and response of one request.

    Args:
        body: of the request.
        sampling: of a request that sets none.
        tokenize: text to tokens.
    """

    def __init__(self, body: ResponsesRequest, sampling: Sampling, tokenize: Callable[[str], Tokens]) -> None:
        self.started = started_response(body, sampling.temperature, sampling.top_p)
        self.tokenize, self.sent = tokenize, 0

    def reply(self, result: SearchResult) -> ResponseReply:
        """The whole response."""
        return self._ended(result, output_items(result))

    def opening(self) -> Iterator[str]:
        """Events before the search."""
        yield self._event("response.created", response=self.started)
        yield self._event("response.in_progress", response=self.started)

    def closing(self, result: SearchResult) -> Iterator[str]:
        """Events after the vote."""
        items = output_items(result)
        for index, item in enumerate(items):
            yield from self._item(index, item)
        response = self._ended(result, items)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> str:
        """The last event of a search that failed. The `openai` package raises errors that have the field `error`."""
        told = error.body["error"]
        details = {"code": told["code"], "message": told["message"], "param": told["param"]}
        return self._event("error", **details, error=told)

    def _item(self, output: int, item: MessageItem | ReasoningItem) -> Iterator[str]:
        """The events of one item, which has one part."""
        [part] = item["content"]
        kind = part["type"]
        field = "refusal" if kind == "refusal" else "text"
        text: str = part[field]  # type: ignore[literal-required]
        logprobs = {"logprobs": part["logprobs"]} if part["type"] == "output_text" else {}
        place = {"item_id": item["id"], "output_index": output, "content_index": 0}
        begun = {**part, field: ""} | {name: [] for name in logprobs}
        yield self._event(
            "response.output_item.added",
            output_index=output, item={**item, "status": "in_progress", "content": []},
        )  # fmt: skip
        yield self._event("response.content_part.added", **place, part=begun)
        for index, piece in enumerate(pieces_of(text)):
            now = logprobs if index == 0 else {name: [] for name in logprobs}
            yield self._event(f"response.{kind}.delta", **place, delta=piece, **now)
        yield self._event(f"response.{kind}.done", **place, **{field: text}, **logprobs)
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=output, item=item)

    def _ended(self, result: SearchResult, items: list[MessageItem | ReasoningItem]) -> ResponseReply:
        _, content = result.thought_and_content()
        return ended_response(self.started, result, items, len(self.tokenize(content)) if content else 0)

    def _event(self, type: str, **fields: Any) -> str:
        """One named event, with the next number."""
        number, self.sent = self.sent, self.sent + 1
        return frame({"type": type, "sequence_number": number, **fields}, type)
