"""Score requests, with the text of tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from scripted_server import Served, scripted_searcher


def score(served: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/score", json={"model": "scripted", **body}, timeout=10)


def test_scores_are_the_value_models(served: Served) -> None:
    reply = score(served, input=[[3, 0, 0], "start", [3]]).json()
    assert [len(row["values"]) for row in reply["data"]] == [1, 1, 1]
    assert reply["usage"]["prompt_tokens"] == 3 + 5 + 1
    every = score(served, input=[[3, 0, 0]], every_token=True).json()["data"][0]["values"]
    assert len(every) == 3
    assert every[-1] == reply["data"][0]["values"][0]
    ends = score(served, input=[[3, 0, 0], "start"], every_token=True, from_token=1, return_text=True).json()["data"]
    assert ends[0]["values"] == every[1:]
    assert [len(row["values"]) for row in ends] == [len(row["tokens"]) for row in ends] == [2, 4]
    assert "tokens" not in reply["data"][0]


def test_tokens_have_the_text_that_all_of_them_have() -> None:
    text = "Die Lösung: 🦉 ist ∫ x² …"
    letters = tuple(text.encode())
    search = scripted_searcher(decode=lambda tokens: bytes(tokens).decode(errors="replace"))
    pieces = search.pieces(letters)
    assert len(pieces) == len(letters)
    assert "".join(pieces) == text
    assert pieces[: len("Die L")] == list("Die L")
    assert "".join(search.pieces(letters[: text.encode().index("🦉".encode()) + 2])) == "Die Lösung: \ufffd"
    assert len("".join(search.pieces((0x80,) * 40))) == 40


@pytest.mark.parametrize(
    ("body", "named"),
    [({"input": []}, "input"), ({"input": [[]]}, "1 to 50"), ({"input": [[1] * 51]}, "1 to 50"), ({"input": [[-1]]}, "input"),
     ({"input": [["a"]]}, "input"), ({"input": ["a"] * 65}, "input"), ({}, "input"), ({"input": ["a"], "model": "x"}, "model"),
     ({"input": [[3, 0]], "every_token": True, "from_token": 2}, "from_token"),
     ({"input": ["a"], "from_token": 1}, "every_token")],
)  # fmt: skip
def test_invalid_input_is_named(served: Served, body: dict[str, Any], named: str) -> None:
    reply = score(served, **body)
    assert reply.status_code in (400, 404)
    assert named in reply.json()["error"]["message"]
