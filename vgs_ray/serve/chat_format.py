"""Chat completions and completions: how a search becomes a reply, or the frames of a stream around its blocks."""

from __future__ import annotations

from collections.abc import Iterator

from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.events import DONE, Chunks, Delta, frame
from vgs_ray.serve.replies import ChatReply, TextReply, chat_reply, search_reply, text_reply, usage_reply
from vgs_ray.serve.requests import ChatRequest, CompletionRequest
from vgs_ray.serve.search_result import SearchResult

CHUNK_CHARS = 2048
ROLE: Delta = {"role": "assistant", "content": ""}


class ChatFormat:
    """OpenAI's chunks and replies of one request.

    Args:
        body: of a chat completion, or a completion.
    """

    def __init__(self, body: ChatRequest | CompletionRequest) -> None:
        self.body = body
        self.include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self.chunks = Chunks(body.model, text=isinstance(body, CompletionRequest))

    def reply(self, result: SearchResult) -> ChatReply | TextReply:
        """The whole reply."""
        return (text_reply if self.chunks.text else chat_reply)(result, self.body.model)

    def opening(self) -> Iterator[str]:
        """Frames before the search."""
        yield frame(self.chunks.delta(0, ROLE))

    def closing(self, result: SearchResult) -> Iterator[str]:
        """Frames after the vote: the answer, its finish reason with the details of the search, and the usage."""
        for index in range(1, len(result.choices)):
            yield frame(self.chunks.delta(index, ROLE))
        for index in range(len(result.choices)):
            for delta in self._deltas(result, index):
                yield frame(self.chunks.delta(index, delta))
            if result.logprobs:
                yield frame(self.chunks.logprobs(index, result))
        for index, leaf in enumerate(result.choices):
            last = self.chunks.delta(index, {}, result.finish_reason(index))
            if leaf == result.selected:
                last["vgs_ray"] = search_reply(result)
            yield frame(last)
        if self.include_usage:
            yield frame(self.chunks.usage(usage_reply(result)))
        yield DONE

    def failure(self, error: ApiError) -> str:
        """The last frame of a search that failed."""
        return frame(error.body)

    def _deltas(self, result: SearchResult, choice: int) -> Iterator[Delta]:
        text = result.leaves[result.choices[choice]].text
        thought, content = ("", text) if self.chunks.text else result.thought_and_content(choice)
        for piece in pieces_of(thought):
            yield {"reasoning_content": piece}
        if result.refusal:
            yield {"refusal": result.refusal}
            return
        for piece in pieces_of(content):
            yield {"content": piece}


def pieces_of(text: str) -> Iterator[str]:
    """A text in pieces of at most `CHUNK_CHARS` characters."""
    return (text[start : start + CHUNK_CHARS] for start in range(0, len(text), CHUNK_CHARS))
