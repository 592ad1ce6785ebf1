"""The comparison on the page: three searches of one problem side by side, and which answers are right."""

from __future__ import annotations

from typing import Any

from page_server import ask, opened, state
from playwright.sync_api import BrowserContext, Page, Route, expect
from scripted_server import HANG, Served, wait_until

METHODS = {"policy": "Plain policy", "majority": "Majority vote", "scripted": "Guided search"}


def compare(page: Page, problem: str, known: str = "", **options: Any) -> None:
    page.get_by_label("Problem", exact=True).fill(problem)
    page.get_by_label("Known answer").fill(known)
    page.locator("#options").evaluate("it => { it.open = true }")
    for name, value in options.items():
        page.get_by_label(name).fill(str(value))
    page.get_by_role("button", name="Compare", exact=True).click()


def test_compare_runs_three_searches_and_marks_their_answers(context: BrowserContext, served: Served) -> None:
    found = {model: served.post(model=model, search={"seed": 5}).json() for model in METHODS}
    answers = {model: reply["vgs_ray"]["answer"] for model, reply in found.items()}
    known = answers["scripted"]
    page = opened(context, served)
    sent: list[dict[str, Any]] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "/chat/" in request.url else None)
    compare(page, "3", known=f"{known[6]}/7", Seed=5)
    state(page, "done")
    assert sorted(body["model"] for body in sent) == sorted(METHODS)
    for model, title in METHODS.items():
        row = page.locator("#compared tr", has_text=title)
        reply = found[model]["vgs_ray"]
        expect(row.locator("[data-name=Answer]")).to_have_text(f"{answers[model][6]}/7")
        expect(row.locator("[data-name=Result]")).to_contain_text("right" if answers[model] == known else "wrong")
        expect(row.locator("[data-name=Generated]")).to_have_text(f"{reply['usage']['generated']} tokens")
        expect(row.locator("[data-name=Time]")).to_contain_text(" s")
        panel = page.get_by_role("region", name=title, exact=True)
        assert panel.get_by_role("treeitem").count() >= len(reply["leaves"])
    expect(page.locator("#verdict")).to_contain_text("Guided search (")
    expect(page.locator("#answer-title")).to_have_text("Answer: guided search")
    page.get_by_role("region", name="Plain policy", exact=True).get_by_role("treeitem").click()
    expect(page.locator("#answer-title")).to_have_text("Answer: plain policy")
    assert page.locator("[role=treeitem][aria-selected=true]").count() == 1


def test_a_budget_is_that_of_vote_and_guided_search(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    sent: list[dict[str, Any]] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "/chat/" in request.url else None)
    compare(page, "3", Budget=4)
    state(page, "done")
    assert {body["model"]: body["search"].get("budget") for body in sent} == {
        "policy": None, "majority": 4, "scripted": 4,
    }  # fmt: skip
    expect(page.locator("#verdict")).to_contain_text("Enter the known answer")


def test_the_three_grow_at_the_same_time_and_end_together(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    before, started = served.policy.cancelled, served.policy.started
    compare(page, HANG)
    wait_until(lambda: served.policy.started == started + 1 + 8 + 8)
    expect(page.locator("#compared [data-name=Result]")).to_have_text(["grows"] * 3)
    page.get_by_role("button", name="Cancel").click()
    state(page, "cancelled")
    wait_until(lambda: served.policy.cancelled == before + 17)
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_focused()


def test_one_search_that_fails_leaves_the_others(context: BrowserContext, served: Served) -> None:
    refusal = {"error": {"message": "the server is busy", "type": "x", "param": None, "code": None}}

    def refuse(route: Route) -> None:
        busy = '"majority"' in (route.request.post_data or "")
        route.fulfill(status=429, json=refusal) if busy else route.continue_()

    context.route("**/chat/completions", refuse)
    page = opened(context, served)
    compare(page, "3", known="0/7", Seed=5)
    state(page, "failed")
    expect(page.get_by_role("alert")).to_have_text("the server is busy")
    expect(page.locator("#status")).to_have_text("1 of 3 searches failed")
    expect(page.locator("#compared [data-name=Result]")).to_have_text(["✗ wrong", "failed", "✓ right"])
    expect(page.locator("#verdict")).to_contain_text("Guided search (0/7) is right")


def test_repeated_comparisons_are_counted(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    for _ in range(2):
        compare(page, "3", known="0/7", Seed=5)
        state(page, "done")
    right = [served.post(model=model, search={"seed": 5}).json()["vgs_ray"]["answer"][6] == "0" for model in METHODS]
    counts = [2 * it for it in right]
    expect(page.locator("#verdict")).to_contain_text(
        f"Right in 2 comparisons of this problem: plain policy {counts[0]}, majority vote {counts[1]} and "
        f"guided search {counts[2]}."
    )


EQUAL = [
    (r"\frac{17}{7}", "17/7", True),
    (r"\dfrac{34}{14}", r"$\frac{17}{7}$", True),
    ("0.5", r"\frac12", True),
    ("-3", r"\boxed{-3}", True),
    ("1,234", "1234", True),
    ("7", "8", False),
    (r"\frac{1}{3}", "0.3333", False),
    (r"x + 1", "x+1", True),
    ("1+x", "x+1", None),
    (r"\frac{1}{0}", "1", None),
    (None, "7", False),
    (None, "x", False),
]
"""Answer, known answer, and whether they are equal; None is left to the reader."""


def test_answers_are_compared_exactly_or_left_to_the_reader(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    script = """async pairs => {
      const { isRight } = await import("/static/modules/equal.js");
      return pairs.map(pair => isRight(...pair));
    }"""
    assert page.evaluate(script, [pair[:2] for pair in EQUAL]) == [right for *_, right in EQUAL]


def test_a_search_is_marked_as_well(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    answer = served.post(search={"seed": 5}).json()["vgs_ray"]["answer"]
    for known, words in ((answer, "right"), ("8/9", "wrong")):
        page.get_by_label("Known answer").fill(known)
        ask(page, Seed=5)
        state(page, "done")
        expect(page.locator("#answer .badge")).to_contain_text(words)
