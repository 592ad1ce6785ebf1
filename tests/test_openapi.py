"""The endpoint against its own OpenAPI document: whatever a client that reads it sends, the reply is one that it describes."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_serve import SETTINGS, WORLD, Moody, decode, encode, tokenize

from vgs_ray.engines.scripted import ScriptedValue
from vgs_ray.judge import Judge
from vgs_ray.serve.app import create_app
from vgs_ray.serve.searcher import Searcher

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
app = create_app(Searcher(Moody(WORLD), ScriptedValue(WORLD), encode, tokenize, decode, Judge(workers=1), 50), SETTINGS)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_replies_are_as_described(case: Case) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "vgs"  # no generator guesses a name, and what is behind it would never be reached
    case.call_and_validate(checks=CHECKS)


def test_the_document_has_our_errors_alone() -> None:
    document = app.openapi()
    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/score",
        "/v1/models",
        "/healthz",
        "/readyz",
        "/metrics",
    } <= set(document["paths"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert "422" not in operation["responses"], path
            assert operation["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].endswith(
                "/ErrorReply"
            )
