"""The request of `/v1/responses`, which becomes a chat completion.

In: JSON of OpenAI's Responses API. Out: a `ResponsesRequest`, and the `ChatRequest` that means the same. Nothing is
stored between requests, so fields that refer to earlier responses are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vgs_ray.serve.answer_format import TextFormat, nested
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.limits import MAX_MESSAGES
from vgs_ray.serve.requests import ChatRequest, Effort, RequestFields, Size, StrictModel, check_readable
from vgs_ray.serve.unsupported_fields import RESPONSES_NEUTRAL, drop_unsupported

LOGPROBS = "message.output_text.logprobs"
INCLUDED = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class InputPart(BaseModel):
    """A part of a message: of the user, or copied from the output of an earlier response."""

    model_config = ConfigDict(extra="ignore", strict=True)
    type: Literal["input_text", "output_text", "text", "refusal"]
    text: str = ""
    refusal: str = ""


class InputMessage(BaseModel):
    """A message. Fields that clients copy from an earlier output, such as `id`, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[InputPart], Field(fail_fast=True)]

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.refusal or part.text for part in self.content)


def _messages(value: Any) -> Any:
    """A text as a message. The thoughts of earlier responses are left out, as chat templates of reasoning models do."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        return value
    return [item for item in value if not (isinstance(item, dict) and item.get("type") == "reasoning")]


# The instructions are one message more.
Messages = Annotated[list[InputMessage], Field(min_length=1, max_length=MAX_MESSAGES - 1)]
Input = Annotated[Messages, BeforeValidator(_messages, json_schema_input_type=str | Messages)]


class Reasoning(StrictModel):
    """The effort. A summary is never made: the output has the whole thought."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesStreamOptions(StrictModel):
    include_obfuscation: Literal[False] | None = None


class ResponsesText(StrictModel):
    """The form of the text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesChat(ChatRequest):
    """A chat completion that comes from `/v1/responses`, whose fields have other names."""

    prompt_field: ClassVar[str] = "input"
    format_field: ClassVar[str] = "text.format"
    max_output_tokens: Size | None = None


class ResponsesRequest(RequestFields):
    """A response. The last message of the input is the problem.

    Attributes:
        instructions: a system message before the input.
        max_output_tokens: as `max_completion_tokens` of a chat completion.
        include: `message.output_text.logprobs` returns log-probabilities. Reasoning is returned as text, never encrypted.
        store: responses are never stored.
        text: the form of the content.
    """

    input: Input
    instructions: str | None = None
    max_output_tokens: Size | None = None
    reasoning: Reasoning | None = None
    include: list[INCLUDED] | None = None
    stream_options: ResponsesStreamOptions | None = None
    text: ResponsesText | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_body(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return drop_unsupported(check_readable(body), cls.model_fields, RESPONSES_NEUTRAL)

    @model_validator(mode="after")
    def _check_events(self) -> ResponsesRequest:
        if self.search and self.search.events:
            raise ApiError(
                400, "search.events is true, and streams of /v1/responses have the events of OpenAI's protocol only: leave it "
                "out or use /v1/chat/completions", "search.events", "unsupported_value",
            )  # fmt: skip
        return self

    def text_format(self) -> dict[str, Any]:
        """The form of the content in OpenAI's layout."""
        form = self.text.format if self.text else None
        return form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}

    def as_chat(self) -> ResponsesChat:
        """The chat completion that means the same."""
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        body = {
            "messages": system + [{"role": each.role, "content": each.text()} for each in self.input],
            "reasoning_effort": self.reasoning and self.reasoning.effort,
            "response_format": nested(self.text_format()),
            "logprobs": LOGPROBS in (self.include or ()),
            "search": self.search.model_dump(exclude_unset=True) if self.search else None,
        }
        same = ("model", "max_output_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stream")
        return ResponsesChat.model_validate({name: getattr(self, name) for name in same} | body)
