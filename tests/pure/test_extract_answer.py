"""Extraction of the answer from a response: boxes, thoughts, and long texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.grade import (
    MAX_SOLUTION_CHARS,
    boxes,
    extract_answer,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so 7</think>\boxed{7}", "7"),
        (r"<think>so 7</think>\n\nIt is $\boxed{7}$.", "7"),
        (r"so 7<|end_of_thought|><|begin_of_solution|>\boxed{7}<|end_of_solution|>", "7"),
        (r"\boxed{1}</think>\boxed{2} and \boxed{3}", "3"),
        (r"</think>\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"</think>\boxed {7}", "7"),
        ("</think>\\boxed\n{7}", "7"),
        (r"</think>\fbox{7}", "7"),
        (r"</think>\\boxed{7}", "7"),
        (r"</think>\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"</think>\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"</think>\boxed{\boxed{7}}", r"\boxed{7}"),
        (r"</think>\boxed{7} or rather \boxed{8", "7"),
        (r"</think>\boxed{9 or rather \boxed{8}", "8"),
        (r"</think>the answer \boxed{7}, as the tag </think> shows", "7"),
        (r"the answer \boxed{7}", None),  # the thought is not finished
        (r"<think>\boxed{7}", None),
        (r"\boxed{7}</think>I cannot say.", None),
        (r"</think>\boxed{7} no: \boxed{}", None),
        (r"</think>\boxed{ }", None),
        (r"</think>\boxed7", None),
        (r"</think>\boxedness{7}", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_boxes_are_outermost_and_in_order() -> None:
    assert boxes(r"\boxed{1} {\fbox{2}} \boxed{a \boxed{b} c} \boxed{\boxed{x} \boxed{y}") == [
        "1",
        "2",
        r"a \boxed{b} c",
        "x",
        "y",
    ]


@settings(deadline=None)
@given(st.text(alphabet="\\{}boxedf </think>7", max_size=200) | st.text(max_size=100))
def test_extract_answer_never_raises_and_never_gives_an_empty_answer(text: str) -> None:
    assert extract_answer(text) != ""
    assert extract_answer("</think>" + text) != ""


balanced = st.recursive(
    st.text(alphabet="ab1+-,. ", max_size=6) | st.sampled_from([r"\{", r"\}", r"\pi"]),
    lambda inner: st.lists(inner, max_size=3).map("".join) | inner.map(lambda text: "{" + text + "}"),
    max_leaves=8,
).filter(lambda text: bool(text.strip()))


@settings(deadline=None)
@given(content=balanced, before=st.text(max_size=30), after=st.text(alphabet="ab {}$.", max_size=30))
def test_a_box_comes_back_as_it_was_put_in(content: str, before: str, after: str) -> None:
    content = content.strip()
    assert extract_answer(rf"{before}</think>{before}" + "\n" + rf"\boxed{{{content}}} {after}") == content


@pytest.mark.parametrize("piece", [r"\boxed{", "{", "}", "\\", r"\boxed{{", r"\boxed{}", "</think>", r"\boxed "])
@pytest.mark.timeout(20)
def test_time_is_linear_in_the_text(piece: str) -> None:
    extract_answer("</think>" + piece * 200_000)


def test_only_the_end_of_a_very_long_solution_is_searched() -> None:
    filler = "x" * MAX_SOLUTION_CHARS
    assert extract_answer(rf"</think>\boxed{{7}}{filler}") is None
    assert extract_answer(rf"</think>{filler}\boxed{{7}}") == "7"
