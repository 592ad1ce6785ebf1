"""What goes over the wire: requests and replies in the OpenAI layout, with `search` and `vgs_ray` as extra objects.

In: JSON. Out: checked models, or an `ApiError` that names the field, its value, the rule and the remedy. A field of
OpenAI's that is not supported passes with the value that asks for nothing (`best_of: 1`, `tools: []`), else it is refused
by name: an ignored option would look like one that works.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import HTTPException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_BODY_BYTES = 2**20
MAX_MESSAGES = 256
INT64 = 2**63
MAX_DEADLINE_S = 3600.0
MAX_CHOICES = 128
MAX_SCORED = 64
"""Sequences of one request to score."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "web_search_options": (),
    "verbosity": ("medium",),
}
"""OpenAI's fields that are not supported, and the values of them that ask for nothing; null always does."""

ErrorType = Literal["invalid_request_error", "not_found_error", "server_error"]
Method = Literal["sample", "beam"]
Select = Literal["best", "majority", "weighted_majority"]


class ApiError(HTTPException):
    """An error as OpenAI's clients read it.

    Args:
        status: of HTTP.
        message: names the value, the rule and the remedy.
        param: the field, with dots, where one is at fault.
        code: a word for programs.
        headers: of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        kind: ErrorType = "server_error" if status >= 500 else "invalid_request_error"
        self.body = error_body(message, "not_found_error" if status == 404 else kind, param, code)


def error_body(message: str, kind: ErrorType, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Wire(BaseModel):
    """Strict: `"5"` is no number, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Wire):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message; fields that clients copy from an earlier reply (`reasoning_content`, `refusal` ...) are not read."""

    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


Size = Annotated[int, Field(ge=1, lt=INT64)]
Seed = Annotated[int, Field(ge=-INT64, lt=INT64)]
Stop = Annotated[str, Field(min_length=1, max_length=64)]
Stops = Annotated[
    list[Stop],
    Field(max_length=4),
    BeforeValidator(
        lambda given: [given] if isinstance(given, str) else given, json_schema_input_type=Stop | list[Stop]
    ),
]


class SearchOptions(Wire):
    """How to search; what is left out comes from the server's configuration.

    Attributes:
        method: `sample` writes `budget` whole answers, `beam` is value-guided.
        budget: generations side by side: answers of `sample`, `keep * branch * groups` of `beam`.
        keep, branch, block, groups: shape of `beam` (see `vgs_ray.config.Beam`).
        select: how the answers vote.
        max_tokens, seed: as the fields of the same name beside `search`, and stronger.
        deadline_s: seconds after which the best of what is there is the reply.
        events: stream an event for each block of the tree.
    """

    method: Method = "beam"
    budget: Size | None = None
    keep: Size | None = None
    branch: Size | None = None
    block: Size | None = None
    groups: Size | None = None
    select: Select = "weighted_majority"
    max_tokens: Size | None = None
    seed: Seed | None = None
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = None
    events: bool = False


class StreamOptions(Wire):
    include_usage: bool = False


class SearchRequest(Wire):
    """What chats and completions share; `NEUTRAL` fields are checked before these.

    Attributes:
        n: choices of the reply: the answers of one search, the chosen one first.
        stop: strings before which an answer ends.
    """

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Size | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    search: SearchOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, body: Any) -> Any:
        return refuse_unsupported(body) if isinstance(body, dict) else body


class ChatRequest(SearchRequest):
    """A chat completion. The last user message is the problem."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Size | None = None


class CompletionRequest(SearchRequest):
    """A completion: the prompt is continued as it stands, without chat template and instruction."""

    prompt: str


class ScoreRequest(Wire):
    """Texts or token ids to score, as they stand.

    Attributes:
        every_token: a value after each token, not only at the last one.
        from_token: index of the first token whose value is wanted, of every sequence (with `every_token`).
        return_text: also the text of each token that has a value.
    """

    model: str
    input: Annotated[
        list[str | list[Annotated[int, Field(ge=0, lt=2**31)]]], Field(min_length=1, max_length=MAX_SCORED)
    ]
    every_token: bool = False
    from_token: Annotated[int, Field(ge=0, lt=2**31)] = 0
    return_text: bool = False

    @model_validator(mode="after")
    def _from_one_of_many(self) -> ScoreRequest:
        if self.from_token and not self.every_token:
            raise ApiError(
                400, f"from_token is {self.from_token} and every_token is false; without it only the last token has a value: "
                "leave from_token out or set every_token", "from_token", "invalid_value",
            )  # fmt: skip
        return self


def refuse_unsupported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing.

    Raises:
        ApiError: 400 for a field that asks for what is not supported.
    """
    for name, values in NEUTRAL.items():
        value = body.get(name)
        if value is not None and not any(
            value == one and type(value) is type(one) for one in (*values, *_floats(values))
        ):
            allowed = " or ".join(json.dumps(one) for one in values) or "null"
            raise ApiError(
                400, f"{name} is {short(value)}, which is not supported: leave {name} out or send {allowed}",
                name, "unsupported_value",
            )  # fmt: skip
    return {name: value for name, value in body.items() if name not in NEUTRAL}


def invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """pydantic's complaints as one error: the deepest, because a union also complains about its other types."""
    first = max(errors, key=lambda error: len(error["loc"]))
    # Where a field is one of several types, the types' names are part of the place: they are no field.
    place = [
        str(part) for part in first["loc"] if part not in ("body", "str", "list[TextPart]", "list[constrained-int]")
    ]
    param = ".".join(place) or None
    value = short(first.get("input"))
    if first["type"] == "extra_forbidden":
        return ApiError(
            400, f"{param} is not a known field: leave it out (the fields are listed at /docs)", param, "unknown_field"
        )
    if first["type"] == "missing":
        return ApiError(
            400, f"{param or 'the body'} is missing, and every request needs it: add it", param, "missing_field"
        )
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is not valid JSON ({first.get('ctx', {}).get('error', first['msg'])}): send a JSON object"
        )
    rule = first["msg"][:1].lower() + first["msg"][1:]
    return ApiError(400, f"{param or 'the body'} is {value}; {rule}: change it", param, "invalid_value")


def short(value: Any) -> str:
    """A value for a message: JSON in ASCII, cut."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _floats(values: tuple[Any, ...]) -> tuple[float, ...]:
    """0 may be written 0.0, as most clients do; but neither 0 nor 1 may stand for false and true."""
    return tuple(float(value) for value in values if type(value) is int)
