"""The form of an answer that a request asks for: JSON that fits a schema, or text that a regular expression matches.

In: `response_format` of OpenAI, `structured_outputs` of vLLM, or `text.format` of the Responses API. Out: a `Grammar` for the
engine, or an `ApiError` that names the field. A grammar is compiled by the engine, so its size is bounded here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vgs_ray.engines.interface import Grammar
from vgs_ray.serve.errors import ApiError

MAX_SCHEMA_CHARS = 16_384
MAX_REGEX_CHARS = 1024
MAX_REPEATS = 1000
"""Repetitions that a schema or a regular expression may ask for. Those of nested groups are multiplied."""
ANY_OBJECT = '{"type": "object"}'
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class TextForm(_Form):
    """Any text."""

    type: Literal["text"]


class JsonObjectForm(_Form):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Form):
    """A JSON schema. It is always kept to, also without `strict`; name and description have no effect."""

    name: str
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema", default_factory=dict)


class JsonSchemaForm(_Form):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class FlatJsonSchemaForm(JsonSchema):
    """The same in the layout of the Responses API."""

    type: Literal["json_schema"]


class StructuredOutputs(_Form):
    """vLLM's field: a JSON schema or a regular expression."""

    json_: dict[str, Any] | str | None = Field(alias="json", default=None)
    regex: str | None = None


ResponseFormat = Annotated[TextForm | JsonObjectForm | JsonSchemaForm, Field(discriminator="type")]
TextFormat = Annotated[TextForm | JsonObjectForm | FlatJsonSchemaForm, Field(discriminator="type")]


def nested(text_format: dict[str, Any]) -> dict[str, Any]:
    """A form in the layout of the Responses API, in that of chat completions."""
    if text_format["type"] != "json_schema":
        return text_format
    return {"type": "json_schema", "json_schema": {name: text_format[name] for name in text_format if name != "type"}}


def grammar_of(form: ResponseFormat | None, structured: StructuredOutputs | None, param: str) -> Grammar | None:
    """The grammar of the answer; None for any text.

    Args:
        form, structured: of the request; only one of them may ask for a form.
        param: name of the first one's field.

    Raises:
        ApiError: 400 if both ask for a form, or if a grammar is not readable or too large.
    """
    wanted = _of_form(form)
    if structured is None:
        return wanted and _checked(wanted, param)
    if wanted:
        message = f"structured_outputs and {param} both ask for a form of the answer: send one of them"
        raise ApiError(400, message, "structured_outputs", "invalid_value")
    return _checked(_of_structured(structured), "structured_outputs")


def _of_form(form: ResponseFormat | None) -> Grammar | None:
    match form:
        case JsonObjectForm():
            return Grammar("json", ANY_OBJECT)
        case JsonSchemaForm(json_schema=wanted):
            return Grammar("json", json.dumps(wanted.schema_))
        case _:
            return None


def _of_structured(structured: StructuredOutputs) -> Grammar:
    schema, regex = structured.json_, structured.regex
    if (schema is None) == (regex is None):
        raise ApiError(
            400, "structured_outputs has both or none of json and regex; send one of them", "structured_outputs",
            "invalid_value",
        )  # fmt: skip
    if regex is not None:
        return Grammar("regex", regex)
    return Grammar("json", schema if isinstance(schema, str) else json.dumps(schema))


def _checked(grammar: Grammar, param: str) -> Grammar:
    """The grammar, unless it is unreadable or so large that to compile it would hold up other searches."""
    if grammar.kind == "regex":
        most, repeats = MAX_REGEX_CHARS, _regex_repeats(grammar.text, param)
    else:
        most, repeats = MAX_SCHEMA_CHARS, _schema_repeats(grammar.text, param)
    if len(grammar.text) > most:
        message = f"{param} has {len(grammar.text)} characters; a {grammar.kind} grammar has at most {most}: shorten it"
        raise ApiError(400, message, param, "invalid_value")
    if repeats > MAX_REPEATS:
        raise ApiError(
            400, f"{param} asks for {repeats} repetitions; a grammar has at most {MAX_REPEATS}: lower its counts", param,
            "invalid_value",
        )  # fmt: skip
    return grammar


def _regex_repeats(regex: str, param: str) -> int:
    try:
        re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        message = f"{param} is no regular expression ({error}): correct it"
        raise ApiError(400, message, param, "invalid_value") from None
    # Without parsing the groups, all counts are taken as nested.
    return math.prod(max(int(most or least), 1) for least, most in _REPEAT.findall(regex))


def _schema_repeats(schema: str, param: str) -> int:
    try:
        found = json.loads(schema)
    except ValueError as error:
        raise ApiError(400, f"{param} is no JSON ({error}): correct it", param, "invalid_value") from None
    if not isinstance(found, dict):
        raise ApiError(400, f"{param} is {schema[:40]}; a JSON schema is an object", param, "invalid_value")
    counts = [1]
    for name, value in _pairs(found):
        if name in COUNTS and isinstance(value, int | float):
            counts.append(int(value))
        if name == "pattern" and isinstance(value, str):
            counts.append(_regex_repeats(value, param))
    return max(counts)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """The names and values of an object and of all objects in it."""
    if isinstance(value, dict):
        yield from value.items()
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pairs(each)
