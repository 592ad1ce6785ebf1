"""What a person does on the page, in a headless Chromium against a real server with scripted engines."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
from page_server import ask, opened, serving, state, watched
from playwright.sync_api import Browser, BrowserContext, expect
from scripted_server import HANG, SETTINGS, Served, wait_until

from vgs_ray.serve.access import KEYS


def test_from_question_to_vote(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    ask(page, Seed=5)
    state(page, "done")
    found = served.post(search={"seed": 5}).json()
    said, usage = found["vgs_ray"], found["usage"]
    assert re.fullmatch(r"\\frac\{\d\}\{7\}", said["answer"])
    over = said["answer"][6]

    items = page.get_by_role("treeitem")
    labels = [items.nth(at).get_attribute("aria-label") or "" for at in range(items.count())]
    assert all(
        re.fullmatch(r"block \d+ of group [12], value \d\.\d\d, (kept|pruned|finished|cut off)", it) for it in labels
    )
    assert sum("finished" in label for label in labels) == len(said["leaves"])
    assert page.locator("#box .node.pruned").count() == sum("pruned" in label for label in labels) > 0
    assert page.locator(".edge.chosen").count() == 1

    expect(page.locator("#status")).to_have_text(f"Done: the answer is {over}/7")
    expect(page.locator("#answer .katex-mathml annotation")).to_have_text(said["answer"])
    assert page.locator("#said .katex").count() == 3
    assert page.locator("#said .katex-display .mop").count() > 0
    votes = page.locator("#votes li")
    assert votes.count() == len(said["votes"])
    leaves = said["votes"][0]["leaves"]
    expect(votes.first.locator(".weight")).to_have_text(
        f"{said['votes'][0]['weight']:.2f} from {leaves} answer{'s' if leaves > 1 else ''}"
    )
    cost = page.locator("#cost")
    for text in (f"Generated{usage['completion_tokens']} tokens", f"Scored{said['usage']['scored']} tokens", "Seed5"):
        expect(cost).to_contain_text(text)
    page.get_by_text("Thought", exact=True).click()
    expect(page.locator("#thought-text .katex").nth(20)).to_be_visible()


def test_a_block_is_shaded_by_the_values_of_its_tokens_once(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    scored: list[dict[str, Any]] = []
    page.on("request", lambda request: scored.append(request.post_data_json) if "/v1/score" in request.url else None)
    ask(page, Seed=5)
    state(page, "done")
    shaded = page.locator("#node-scores")
    expect(shaded).to_contain_text("Shaded by the value after each token")
    [whole] = scored  # one pass gives the values of the whole path of the chosen answer
    assert whole["from_token"] == 1
    values = httpx.post(f"{served.url}/v1/score", json={**whole, "return_text": False}).json()["data"][0]["values"]
    page.locator(".node[aria-selected=true]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#node-about")).to_contain_text("Block 1 of group")
    tokens = page.locator("#text .token")
    expect(tokens).to_have_count(6)
    assert [tokens.nth(at).get_attribute("title") for at in range(6)] == [f"{value:.2f}" for value in values[:6]]
    pruned = page.locator("#box .node.pruned").first
    pruned.click()
    expect(tokens).to_have_count(6)
    page.locator("#box .node:not(.pruned)").first.click()
    pruned.click()
    expect(shaded).to_contain_text("Shaded")
    page.wait_for_timeout(400)
    assert len([asked for asked in scored if asked["input"] == scored[1]["input"]]) == 1
    assert scored[1]["from_token"] == len(scored[1]["input"][0]) - 6


def test_cancel_ends_the_search_on_the_server(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    before = served.policy.cancelled
    ask(page, HANG)
    wait_until(lambda: served.policy.started - served.policy.cancelled >= 8)
    state(page, "searching")
    expect(page.locator("#status")).to_contain_text("Searching")
    page.get_by_role("button", name="Cancel").click()
    state(page, "cancelled")
    expect(page.locator("#status")).to_contain_text("Cancelled after")
    wait_until(lambda: served.policy.cancelled == before + 8)
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_focused()
    ask(page)
    state(page, "done")


def test_a_search_that_waits_says_so(context: BrowserContext) -> None:
    with serving(settings=replace(SETTINGS, max_beams=8, max_waiting=1)) as busy:
        first, second = opened(context, busy), opened(context, busy)
        ask(first, HANG)
        wait_until(lambda: busy.policy.started >= 8)
        ask(second)
        expect(second.locator("#status")).to_have_text("Waiting: position 1 in the queue")
        third = opened(context, busy)
        ask(third)
        expect(third.get_by_role("alert")).to_contain_text("1 searches are waiting (at most 1)")
        first.get_by_role("button", name="Cancel").click()
        state(second, "done")


@pytest.mark.parametrize(
    ("problem", "options", "said"),
    [
        (" ", {}, "it is the problem to solve"),
        ("3", {"Budget": 1000}, "at most 32"),
        ("die", {}, "an engine is unavailable"),
    ],
)
def test_errors_are_told_in_the_servers_words(
    context: BrowserContext, served: Served, problem: str, options: dict[str, Any], said: str
) -> None:
    page = opened(context, served)
    ask(page, problem, **options)
    expect(page.get_by_role("alert")).to_contain_text(said)
    state(page, "failed")
    ask(page, **dict.fromkeys(options, ""))
    state(page, "done")
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("size", [(1280, 720), (360, 640)], ids=str)
@pytest.mark.parametrize(("problem", "options"), [("3", {"Budget": 1000}), ("die", {}), ("3", {"Seed": 2**53})])
def test_an_error_is_in_sight(
    browser: Browser, served: Served, size: tuple[int, int], problem: str, options: dict[str, Any]
) -> None:
    with watched(browser.new_context(viewport={"width": size[0], "height": size[1]})) as window:
        page = opened(window, served)
        ask(page, Seed=5)
        state(page, "done")  # a tree and an answer, so that the page is long
        ask(page, problem, **options)
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_focused()
        page.wait_for_timeout(300)  # nothing may scroll it away afterwards
        expect(page.get_by_role("alert")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("seed", [2**53 - 1, -(2**53) + 1, 0])
def test_a_seed_arrives_as_it_was_entered(context: BrowserContext, served: Served, seed: int) -> None:
    page = opened(context, served)
    ask(page, Seed=seed)
    state(page, "done")
    expect(page.locator("#cost")).to_contain_text(f"Seed{seed}")


@pytest.mark.parametrize("seed", ["9007199254740992", "9007199254740993", "-9223372036854775808", "1e30"])
def test_a_seed_that_a_script_would_round_is_refused(context: BrowserContext, served: Served, seed: str) -> None:
    page = opened(context, served)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    ask(page, Seed=seed)
    expect(page.get_by_role("alert")).to_contain_text(f"Seed is {seed}; this page accepts")
    ask(page, Seed=7)
    state(page, "done")
    assert sent.count("POST") == 1


def test_what_is_no_number_is_not_taken_for_nothing(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    page.locator("#options").evaluate("it => { it.open = true }")
    page.get_by_label("Seed").press_sequentially("1e")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Seed is not a number")


def test_the_keyboard_is_enough(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "problem":
            break
    page.keyboard.type("3")
    page.keyboard.press("Control+Enter")
    state(page, "done")

    def focused() -> dict[str, Any]:
        return page.evaluate("({role: document.activeElement.getAttribute('role'), "
                             "label: document.activeElement.getAttribute('aria-label'), "
                             "selected: document.activeElement.getAttribute('aria-selected')})")  # fmt: skip

    for _ in range(30):
        page.keyboard.press("Tab")
        if focused()["role"] == "treeitem":
            break
    page.keyboard.press("Home")
    start = focused()
    assert start["label"].startswith("block 1 of group 1")
    assert start["selected"] == "true"
    page.keyboard.press("ArrowDown")
    assert focused()["label"].startswith("block 1 of group 1")
    page.keyboard.press("End")
    assert "of group 2" in focused()["label"]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#node-about")).to_contain_text(focused()["label"][1:])
    page.get_by_role("treeitem").nth(3).focus()  # as a screen reader does
    page.keyboard.press("Enter")
    expect(page.locator("#node-about")).to_contain_text(focused()["label"][1:])
    assert focused()["selected"] == "true"
    assert page.locator("[role=treeitem][tabindex='0']").count() == 1
    assert page.locator("[role=treeitem][aria-selected=true]").count() == 1


def test_values_of_tokens_need_no_mouse(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    ask(page, Seed=5)
    state(page, "done")
    expect(page.locator("#node-scores")).to_contain_text("Shaded")
    page.locator("[role=treeitem][tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#text .token")).to_have_count(6)
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    page.keyboard.press("ArrowRight")
    told, titles = page.locator("#token-value"), page.locator("#text .token")
    expect(told).to_contain_text(f"Token 1 of 6, “so $x_{{i+1}} = x_i$,”: value {titles.first.get_attribute('title')}")
    page.keyboard.press("End")
    value = titles.last.get_attribute("title")
    expect(told).to_contain_text(f"Token 6 of 6, “so $x_{{i+1}} = x_i$,”: value {value}")
    expect(told).to_contain_text("than before it")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#token-rows tr")).to_have_count(6)
    expect(page.locator("#token-rows tr").last).to_contain_text(str(value))


def test_keys_close_the_endpoint_and_not_the_page(context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "sesame")
    with serving() as endpoint:
        page = context.new_page()
        page.goto(endpoint.url)
        expect(page.get_by_role("alert")).to_contain_text("This server requires an API key")
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Tab")
        expect(page.get_by_role("alert")).to_contain_text("The API key is not valid")
        page.get_by_label("API key").fill("sesame")
        page.keyboard.press("Tab")
        expect(page.locator("#model option")).to_have_count(6)
        expect(page.get_by_role("alert")).to_be_hidden()
        ask(page)
        state(page, "done")
        page.reload()
        expect(page.locator("#model option")).to_have_count(6)
