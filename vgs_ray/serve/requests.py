"""Request bodies: OpenAI's fields, and `search` for the options of the search.

In: JSON. Out: validated models, or an `ApiError` that names the field, its value, the rule and the remedy.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from vgs_ray.config.ranges import Penalty
from vgs_ray.prompts import Role
from vgs_ray.serve.answer_format import ResponseFormat, StructuredOutputs
from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.limits import (
    INT64,
    MAX_CHOICES,
    MAX_DEADLINE_S,
    MAX_MESSAGES,
    MAX_NAMES,
    MAX_SEQUENCES_TO_SCORE,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
)
from vgs_ray.serve.unsupported_fields import NEUTRAL, drop_unsupported

Method = Literal["sample", "beam"]
Select = Literal["best", "majority", "weighted_majority"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class StrictModel(BaseModel):
    """Values are not converted (`"5"` is not a number), and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(StrictModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message. Fields that clients copy from an earlier reply, such as `reasoning_content`, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def turn_role(self) -> Role:
        """The role that chat templates know."""
        return "system" if self.role == "developer" else self.role


def _single_prompt(value: Any) -> Any:
    """Unwrap a list of one prompt: OpenAI's API accepts several prompts, and many clients always send a list."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str | list):
        return value
    if len(value) > 1:
        raise ApiError(
            400, f"prompt is a list of {len(value)} prompts; a request has one prompt: send one request for each", "prompt",
            "unsupported_value",
        )  # fmt: skip
    return value[0]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Prompt = Annotated[
    str | TokenIds,
    BeforeValidator(
        _single_prompt,
        json_schema_input_type=str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=1)],
    ),
]
Size = Annotated[int, Field(ge=1, lt=INT64)]
Seed = Annotated[int, Field(ge=-INT64, lt=INT64)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Stops = Annotated[
    list[Stop],
    Field(max_length=MAX_STOP_STRINGS),
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=Stop | list[Stop]
    ),
]


class SearchOptions(StrictModel):
    """How to search. The server's configuration has the defaults.

    Attributes:
        method: `sample` generates `budget` complete answers, `beam` is value-guided search.
        budget: number of parallel generations: answers of `sample`, `keep * branch * groups` of `beam`.
        keep, branch, block, groups, align: shape of `beam` (see `vgs_ray.config.Beam`).
        select: how the final answer is selected.
        confidence: at which the vote is decided, or if `select` is `best`, which the value of an answer reaches; the rest of the
            search is then cancelled. Without it, all groups run.
        min_confidence: without an answer whose calibrated probability reaches it, the reply is a refusal.
        max_tokens, seed: override the fields of the same name outside of `search`.
        deadline_s: seconds until the search ends and the best answer so far is returned.
        events: stream an event for each block of the search tree.
    """

    method: Method = "beam"
    budget: Size | None = None
    keep: Size | None = None
    branch: Size | None = None
    block: Size | None = None
    groups: Size | None = None
    align: bool | None = None
    select: Select = "weighted_majority"
    confidence: Annotated[float, Field(gt=0.5, le=1)] | None = None
    min_confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Size | None = None
    seed: Seed | None = None
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = None
    events: bool = False


class StreamOptions(StrictModel):
    """Options of a stream. OpenAI pads chunks to hide their length (obfuscation); this server does not."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None

    @field_validator("include_obfuscation")
    @classmethod
    def _refuse_obfuscation(cls, value: bool | None) -> bool | None:
        if value:
            name = "stream_options.include_obfuscation"
            raise ApiError(
                400, f"{name} is true, which is not supported: leave it out or send false", name, "unsupported_value"
            )
        return value


class RequestFields(StrictModel):
    """Fields of all requests that search.

    Attributes:
        top_k, min_p, repetition_penalty: as in vLLM. The values 0 or -1, 0 and 1 have no effect.
        user, prompt_cache_key, safety_identifier, metadata: accepted; they do not change the search.
    """

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Penalty | None = None
    stream: bool | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    search: SearchOptions | None = None


class SearchRequest(RequestFields):
    """Fields that chat completions and completions share.

    Attributes:
        n: number of choices in the reply: answers of one search, the selected one first.
        stop: strings before which an answer ends.
        max_tokens: of each answer. A value above the server's limit is reduced to it, with a warning in the reply.
    """

    format_field: ClassVar[str] = "response_format"
    max_tokens: Size | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stops | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_body(cls, body: Any) -> Any:
        return drop_unsupported(check_readable(body), cls.model_fields, NEUTRAL) if isinstance(body, dict) else body


def _known_logprobs(value: Any) -> Any:
    """`logprobs` of a completion: 0 asks for the sampled tokens, a larger number for as many others at each place."""
    if type(value) is int and value > 0:
        raise ApiError(
            400, f"logprobs is {value}; the engines keep the log-probability of the sampled token only: send 0", "logprobs",
            "unsupported_value",
        )  # fmt: skip
    return None if value is False else value


class ChatRequest(SearchRequest):
    """A chat completion. The last message is the problem.

    Attributes:
        logprobs: return the log-probability of each token of the content.
        reasoning_effort: size of the search, relative to that of the model; see `search_options.EFFORTS`.
        response_format, structured_outputs: form of the content, of OpenAI and of vLLM.
    """

    prompt_field: ClassVar[str] = "messages"
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Size | None = None
    reasoning_effort: Effort | None = None
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)


class CompletionRequest(SearchRequest):
    """A completion. The prompt, a text or token ids, is continued without chat template and instruction.

    Attributes:
        logprobs: 0 returns the log-probability of each token.
    """

    prompt_field: ClassVar[str] = "prompt"
    prompt: Prompt
    logprobs: Annotated[
        Literal[0] | None, BeforeValidator(_known_logprobs, json_schema_input_type=Literal[0, False] | None)
    ] = None

    def wants_logprobs(self) -> bool:
        return self.logprobs is not None


class ScoreRequest(StrictModel):
    """Texts or token ids to score, without chat template and instruction.

    Attributes:
        every_token: return a value after each token instead of only the last.
        from_token: with `every_token`, index of the first token whose value is returned, for every sequence.
        return_text: also return the text of each token that has a value.
    """

    model: str
    input: Annotated[list[str | TokenIds], Field(min_length=1, max_length=MAX_SEQUENCES_TO_SCORE)]
    every_token: bool = False
    from_token: Annotated[int, Field(ge=0, lt=2**31)] = 0
    return_text: bool = False

    @model_validator(mode="before")
    @classmethod
    def _check_body(cls, body: Any) -> Any:
        return check_readable(body) if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _check_from_token(self) -> ScoreRequest:
        if self.from_token and not self.every_token:
            raise ApiError(
                400, f"from_token is {self.from_token} and every_token is false, which returns the last token's value only: "
                "leave from_token out or set every_token", "from_token", "invalid_value",
            )  # fmt: skip
        return self


def check_readable(body: dict[str, Any]) -> dict[str, Any]:
    """The body, unless it cannot be processed.

    Raises:
        ApiError: 400 if a name or value has an unpaired surrogate, if the body is nested too deeply, or if an object has too
            many names.
    """
    for name, value in (("the body", body), *body.items()):
        if isinstance(value, dict) and len(value) > MAX_NAMES:
            raise ApiError(
                400, f"{short(name)} has {len(value)} names; an object has at most {MAX_NAMES}: remove some of them"
            )
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        param = next((name for name, value in body.items() if not _encodes(name) or not _encodes(value)), "the body")
        raise ApiError(
            400, f"{ascii(param)[1:-1]} has an unpaired surrogate, which is not a character: send valid Unicode",
            param if _encodes(param) else None, "invalid_value",
        ) from None  # fmt: skip
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply; no field needs more than four levels: flatten it") from None
    return body


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
