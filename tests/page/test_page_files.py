"""What a person takes from the page: saved trees, the history of the tab, and copies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from page_server import ask, opened, serving, state
from playwright.sync_api import BrowserContext, Page, expect
from scripted_server import Served


def save(page: Page, path: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save tree").click()
    download.value.save_as(path)
    return json.loads(path.read_text())


def shown(page: Page) -> dict[str, Any]:
    """What the page shows of a run."""
    labels = "all => all.map(it => [it.getAttribute('aria-label'), it.getAttribute('transform')])"
    texts = ("#answer", "#answer-about", "#said", "#votes", "#way", "#text", "#token-value")
    return {
        "nodes": page.get_by_role("treeitem").evaluate_all(labels),
        "edges": page.locator(".edge.chosen").evaluate_all("all => all.map(it => it.getAttribute('d'))"),
        **{selector: page.locator(selector).inner_text() for selector in texts},
    }


@pytest.mark.parametrize("button", ["Search", "Compare"])
def test_a_saved_tree_opens_without_a_server(context: BrowserContext, tmp_path: Path, button: str) -> None:
    path = tmp_path / "tree.json"
    with serving() as endpoint:
        page = opened(context, endpoint)
        page.get_by_label("Problem", exact=True).fill("3")
        page.get_by_role("button", name=button, exact=True).click()
        state(page, "done")
        expect(page.locator("#node-scores")).to_contain_text("Shaded")
        saved = save(page, path)
        before = shown(page)
        other = opened(context, endpoint)
    assert saved["format"] == "vgs_ray search tree"
    other.locator("#file").set_input_files(path)
    state(other, "done")
    expect(other.locator("#status")).to_contain_text("Opened from tree.json")
    assert shown(other) == before
    assert len(before["nodes"]) > 8
    expect(other.get_by_role("alert")).to_be_hidden()
    other.locator("#box .node.pruned").first.click()
    expect(other.locator("#node-scores")).to_have_text("The file has no values for the tokens of this block.")


def damaged(saved: dict[str, Any], *path: Any, value: Any) -> str:
    copy = json.loads(json.dumps(saved))
    at = copy
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return json.dumps(copy)


def test_damaged_files_are_refused_and_texts_are_no_html(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    page = opened(context, served)
    ask(page, Seed=5)
    state(page, "done")
    saved = save(page, tmp_path / "tree.json")
    tree = ("searches", 0)
    node = (*tree, "nodes", 3)
    wrong = {
        "is not JSON": "{",
        "has the format": json.dumps([]),
        "this page reads version 1": damaged(saved, "version", value=2),
        "group is 7; it has to be an integer from 0 to 1": damaged(saved, *node, "group", value=7),
        "state is": damaged(saved, *node, "state", value="onclick"),
        "value is 1.5": damaged(saved, *node, "value", value=1.5),
        "does not fit into the tree": damaged(saved, *node, "parent", value=4000),
        "text is 3; it has to be text": damaged(saved, *node, "text", value=3),
        "a list of at most 50000": damaged(saved, *tree, "nodes", value=[0] * 50_001),
        "this page draws at most 65536": damaged(saved, *tree, "search", "groups", value=10**9),
        "model is undefined": damaged(saved, *tree, value=None),
        "has 33,554,433 bytes": " " * (2**25 + 1),
    }
    for words, text in wrong.items():
        (tmp_path / "wrong.json").write_text(text)
        page.locator("#file").set_input_files(tmp_path / "wrong.json")
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("alert")).to_be_focused()
    html = '<img src="x" onerror="alert(1)"><b>bold</b>'
    text = damaged(json.loads(damaged(saved, *node, "text", value=html)), *tree, "content", value=html)
    (tmp_path / "html.json").write_text(text)
    page.locator("#file").set_input_files(tmp_path / "html.json")
    expect(page.locator("#said")).to_have_text(html)
    assert page.locator("img, #said b, #text b").count() == 0


def test_a_link_holds_the_whole_tree(context: BrowserContext, served: Served) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    page = opened(context, served)
    ask(page, Seed=5)
    state(page, "done")
    expect(page.locator("#node-scores")).to_contain_text("Shaded")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#copied")).to_have_text("Link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{served.url}/#tree=")
    other = context.new_page()
    searches: list[str] = []
    other.on("request", lambda request: searches.append(request.url) if "/v1/" in request.url else None)
    other.goto(link)
    state(other, "done")
    assert shown(other) == shown(page)
    expect(other.locator("#status")).to_contain_text("Opened from the link")
    assert searches == [f"{served.url}/v1/models"]
    other.goto(link[:-40])
    other.reload()
    expect(other.get_by_role("alert")).to_contain_text("The link is damaged")


def test_the_history_shows_earlier_searches_again(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    ask(page, "3", Seed=5)
    state(page, "done")
    expect(page.locator("#node-scores")).to_contain_text("Shaded")
    first = shown(page)
    ask(page, "4", Seed=6)
    state(page, "done")
    page.get_by_text("History of this tab (2)").click()
    page.locator("#history li").nth(1).get_by_role("button").click()
    expect(page.get_by_label("Problem", exact=True)).to_have_value("3")
    assert shown(page) == first


def test_copies_are_what_is_shown(context: BrowserContext, served: Served) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    page = opened(context, served)
    ask(page, "it's 3", Seed=5)
    state(page, "done")
    found = served.post(problem="it's 3", search={"seed": 5}).json()

    def copied(name: str) -> str:
        page.get_by_role("button", name=name).click()
        expect(page.locator("#copied")).to_contain_text("copied")
        return page.evaluate("navigator.clipboard.readText()")

    assert copied("Copy answer") == found["vgs_ray"]["answer"]
    assert copied("Copy thought") == found["choices"][0]["message"]["reasoning_content"]
    command = copied("Copy as curl")
    reply = subprocess.run(["bash", "-c", f"{command} -s --noproxy '*'"], capture_output=True, text=True, check=True)
    assert json.loads(reply.stdout)["vgs_ray"]["leaves"] == found["vgs_ray"]["leaves"]


def test_formulas_of_the_problem_are_shown_while_typing(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    expect(page.locator("#preview")).to_be_hidden()
    page.get_by_label("Problem", exact=True).press_sequentially(r"Let $x^2 = \frac{3}{7}$.")
    expect(page.locator("#preview .katex")).to_have_count(1)
    page.get_by_label("Problem", exact=True).fill("It costs $5.")
    expect(page.locator("#preview")).to_be_hidden()


def test_probability_share_ties_and_warnings_are_called_what_they_are(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    page = opened(context, served)
    ask(page, Seed=5)
    state(page, "done")
    ratings = page.locator("#answer-about")
    expect(ratings).to_contain_text("no calibrated probability")
    expect(ratings).to_contain_text(", not calibrated")
    saved = save(page, tmp_path / "tree.json")
    saved["searches"][0]["reply"] |= {
        "probability": 0.84,
        "share": 0.52,
        "undecided": True,
        "warnings": ["max_tokens was reduced to 40"],
    }
    (tmp_path / "rated.json").write_text(json.dumps(saved))
    page.locator("#file").set_input_files(tmp_path / "rated.json")
    expect(ratings).to_contain_text("84%, calibrated by the evaluation")
    expect(ratings).to_contain_text("52%, almost tied with another answer")
    expect(page.locator("#warnings li")).to_have_text("max_tokens was reduced to 40")
