"""Forms of an answer: which grammar a request asks for, and what is refused before a search starts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from vgs_ray.engines.interface import Grammar
from vgs_ray.serve.answer_format import MAX_REGEX_CHARS, MAX_REPEATS, MAX_SCHEMA_CHARS, grammar_of
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.requests import ChatRequest
from vgs_ray.serve.responses_request import ResponsesRequest

SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
NAMED = {"name": "answer", "schema": SCHEMA, "strict": True}


def grammar(**fields: Any) -> Grammar | None:
    request = ChatRequest.model_validate({"model": "vgs", "messages": [{"role": "user", "content": "1"}], **fields})
    return grammar_of(request.response_format, request.structured_outputs, request.format_field)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json", '{"type": "object"}')),
        ({"response_format": {"type": "json_schema", "json_schema": NAMED}}, Grammar("json", json.dumps(SCHEMA))),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}}, Grammar("json", "{}")),
        ({"structured_outputs": {"json": SCHEMA}}, Grammar("json", json.dumps(SCHEMA))),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, Grammar("json", json.dumps(SCHEMA))),
        ({"structured_outputs": {"regex": r"\d{1,3}"}}, Grammar("regex", r"\d{1,3}")),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, Grammar("regex", "a")),
    ],
    ids=str,
)
def test_the_grammar_of_a_request(fields: dict[str, Any], expected: Grammar | None) -> None:
    assert grammar(**fields) == expected


def _schema(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": fields}}}


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"structured_outputs": {}}, "structured_outputs", "both or none"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs", "both or none"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "both",
        ),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs", "is no regular expression"),
        ({"structured_outputs": {"regex": "a" * (MAX_REGEX_CHARS + 1)}}, "structured_outputs", "at most 1024"),
        ({"structured_outputs": {"regex": "((a{50}){50}){1,50}"}}, "structured_outputs", "125000 repetitions"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs", "is no JSON"),
        ({"structured_outputs": {"json": "[1]"}}, "structured_outputs", "a JSON schema is an object"),
        (_schema(title="a" * MAX_SCHEMA_CHARS), "response_format", f"at most {MAX_SCHEMA_CHARS}"),
        (
            _schema(type="array", items={"type": "array", "maxItems": MAX_REPEATS + 1}),
            "response_format",
            "1001 repetit",
        ),
        (_schema(type="string", pattern="(a{40}){40}"), "response_format", "1600 repetitions"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(fields: dict[str, Any], param: str, told: str) -> None:
    with pytest.raises(ApiError) as refused:
        grammar(**fields)
    error = refused.value.body["error"]
    assert (refused.value.status_code, error["param"]) == (400, param)
    assert told in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_object", "more": 1}},
        {"structured_outputs": {"choice": ["a"]}},
    ],
    ids=str,
)
def test_unknown_forms_are_no_requests(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        grammar(**fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({}, None),
        ({"verbosity": "medium"}, None),
        ({"format": {"type": "text"}, "verbosity": "medium"}, None),
        ({"format": {"type": "json_object"}}, Grammar("json", '{"type": "object"}')),
        ({"format": {"type": "json_schema", **NAMED}}, Grammar("json", json.dumps(SCHEMA))),
    ],
    ids=str,
)
def test_a_response_asks_for_the_same_forms(text: dict[str, Any], expected: Grammar | None) -> None:
    request = ResponsesRequest.model_validate({"model": "vgs", "input": "1", "text": text})
    chat = request.as_chat()
    assert grammar_of(chat.response_format, None, chat.format_field) == expected
    assert request.text_format() == text.get("format", {"type": "text"})
