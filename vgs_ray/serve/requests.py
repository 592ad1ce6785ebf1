"""What goes over the wire: requests and replies in the OpenAI layout, with `search` and `vgs_ray` as extra objects.

In: JSON. Out: checked models, or an `ApiError` that names the field, its value, the rule and the remedy.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from vgs_ray.config.ranges import Penalty
from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.unsupported_fields import refuse_unsupported

MAX_BODY_BYTES = 2**20
MAX_MESSAGES = 256
INT64 = 2**63
MAX_DEADLINE_S = 3600.0
MAX_CHOICES = 128
MAX_NAMES = 128
"""Names of one object, such as `metadata`; an error for each of a hundred thousand unknown ones takes seconds to write."""
MAX_SCORED = 64
"""Sequences of one request to score."""
Method = Literal["sample", "beam"]
Select = Literal["best", "majority", "weighted_majority"]


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
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


def _only_prompt(given: Any) -> Any:
    """The prompt of a list of one prompt: OpenAI's protocol lets clients send several, and many always send a list."""
    if not isinstance(given, list) or not given or not isinstance(given[0], str | list):
        return given
    if len(given) > 1:
        raise ApiError(
            400, f"prompt is a list of {len(given)} prompts; a search continues one: send a request for each of them",
            "prompt", "unsupported_value",
        )  # fmt: skip
    return given[0]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Prompt = Annotated[
    str | TokenIds,
    BeforeValidator(
        _only_prompt,
        json_schema_input_type=str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=1)],
    ),
]
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
    """What a stream has beside the answer. OpenAI pads its chunks to hide their length; this server does not."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None

    @field_validator("include_obfuscation")
    @classmethod
    def _unpadded(cls, asked: bool | None) -> bool | None:
        if asked:
            name = "stream_options.include_obfuscation"
            raise ApiError(
                400, f"{name} is true, which is not supported: leave it out or send false", name, "unsupported_value"
            )
        return asked


class SearchRequest(Wire):
    """What chats and completions share; `NEUTRAL` fields are checked before these.

    Attributes:
        n: choices of the reply: the answers of one search, the chosen one first.
        stop: strings before which an answer ends.
        max_tokens: of each answer; more than the server allows is lowered to that, with a warning in the reply.
        top_k, min_p, repetition_penalty: as vLLM has them; 0 or -1, 0 and 1 change nothing.
    """

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Penalty | None = None
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
        return refuse_unsupported(readable(body)) if isinstance(body, dict) else body


class ChatRequest(SearchRequest):
    """A chat completion. The last user message is the problem."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Size | None = None


class CompletionRequest(SearchRequest):
    """A completion: the prompt, a text or token ids, is continued as it stands, without chat template and instruction."""

    prompt: Prompt


class ScoreRequest(Wire):
    """Texts or token ids to score, as they stand.

    Attributes:
        every_token: a value after each token, not only at the last one.
        from_token: index of the first token whose value is wanted, of every sequence (with `every_token`).
        return_text: also the text of each token that has a value.
    """

    model: str
    input: Annotated[list[str | TokenIds], Field(min_length=1, max_length=MAX_SCORED)]
    every_token: bool = False
    from_token: Annotated[int, Field(ge=0, lt=2**31)] = 0
    return_text: bool = False

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, body: Any) -> Any:
        return readable(body) if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _from_one_of_many(self) -> ScoreRequest:
        if self.from_token and not self.every_token:
            raise ApiError(
                400, f"from_token is {self.from_token} and every_token is false; without it only the last token has a value: "
                "leave from_token out or set every_token", "from_token", "invalid_value",
            )  # fmt: skip
        return self


def readable(body: dict[str, Any]) -> dict[str, Any]:
    """The body, where all its text can be encoded.

    Raises:
        ApiError: 400 for half of a surrogate pair, in a value or a name, for a body that is nested too deeply, and for too many
            names.
    """
    for name, value in (("the body", body), *body.items()):
        if isinstance(value, dict) and len(value) > MAX_NAMES:
            raise ApiError(
                400, f"{short(name)} has {len(value)} names; an object has at most {MAX_NAMES}: leave some out"
            )
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        param = next((name for name, value in body.items() if not _encodes(name) or not _encodes(value)), "the body")
        raise ApiError(
            400, f"{ascii(param)[1:-1]} has half of a surrogate pair, which is no character: send valid Unicode",
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
