"""How the page looks and what it is made of: formulas, windows, colours, large trees, its security policy, the wheel."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import httpx
from page_server import ask, opened, serving, state, watched
from playwright.sync_api import Browser, BrowserContext, expect
from scripted_server import HANG, SETTINGS, Served

from vgs_ray.config import Beam, Sampling
from vgs_ray.engines.scripted import World
from vgs_ray.serve.web_page import PAGE

CONTRAST = """() => {  // selector or step of the scale: ratio of text to what lies under it
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    const linear = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((it) => it / 255)
      .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const backs = (element) => {
    const found = [];
    for (let at = element; at; at = at.parentElement) found.unshift(getComputedStyle(at).backgroundColor);
    return found;
  };
  const text = (selector) => {
    const element = document.querySelector(selector);
    const under = backs(element);
    return ratio(light(under), light([...under, getComputedStyle(element).color]));
  };
  const worst = {};
  for (const selector of ["header p", "#status", "dt", "summary", "#search", ".weight", ".before",
    "#node-about", "kbd", ".badge", "small", ".mark"])
    worst[selector] = text(selector);
  const token = document.querySelector("#text .token");
  for (let step = 0; step < 10; step++) { token.className = `token v${step}`; worst[`v${step}`] = text("#text .token"); }
  return worst;
}"""


def test_formulas_are_set_and_money_is_not(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    set_as = """async text => {
      const { rich } = await import("/static/modules/latex.js");
      const place = document.createElement("div");
      place.append(...rich(text));
      document.body.append(place);
      return [place.querySelectorAll(".katex").length, place.textContent];
    }"""
    formulas = (
        r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
        r"\vec{v} \cdot \overbrace{a+b}^{n} \pmb{x}",
        r"\begin{cases} 1 & x>0 \\ 0 \end{cases}",
        r"\sqrt[3]{\frac{a}{b}} \not= \cancel{x}",
        r"\color{red}{x} \underline{y} \xrightarrow{f}",
        r"\int_0^\infty \left( x^{2} \right)",
    )
    for formula in formulas:
        for text in (
            f"${formula}$",
            rf"\({formula}\)",
            f"$${formula}$$",
            rf"\[{formula}\]",
            rf"so \boxed{{{formula}}}.",
        ):
            assert page.evaluate(set_as, text)[0] == 1, text
    for text in ("it costs $5 and then $6", "a $ b $ c", r"\boxed{unfinished", r"$\unknown{$", "<b>no</b>"):
        assert page.evaluate(set_as, text) == [0, text]
    assert page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].some((it) => it.family === 'KaTeX_Main' && it.status === 'loaded'))"
    )


def test_a_narrow_window_does_not_scroll_sideways(browser: Browser, served: Served) -> None:
    with watched(browser.new_context(viewport={"width": 360, "height": 740})) as window:
        page = opened(window, served)
        width = "[document.documentElement.scrollWidth, innerWidth]"
        assert page.evaluate(width) == [360, 360]
        ask(page, Seed=5)
        state(page, "done")
        assert page.evaluate(width) == [360, 360]
        tree, answer = page.locator(".tree").bounding_box(), page.locator("#answer").bounding_box()
        assert tree is not None
        assert answer is not None
        assert answer["y"] < tree["y"]


def test_on_a_phone_the_tree_is_in_sight_while_it_grows(browser: Browser, served: Served) -> None:
    with watched(browser.new_context(viewport={"width": 360, "height": 740})) as window:
        page = opened(window, served)
        ask(page, HANG)
        expect(page.locator(".tree")).to_be_in_viewport(ratio=1)
        expect(page.locator("#status")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("button", name="Cancel")).to_be_in_viewport(ratio=1)
        page.get_by_role("button", name="Cancel").click()
        state(page, "cancelled")


def test_a_large_tree_has_an_overview(context: BrowserContext) -> None:
    settings = replace(SETTINGS, max_budget=256, beam=Beam(keep=1, branch=2, block=6, groups=128))
    with serving(settings=settings) as endpoint:
        page = opened(context, endpoint)
        ask(page)
        state(page, "done")
        last = page.get_by_role("group", name="group 128", exact=True).get_by_role("treeitem").first
        overview = page.locator(".overview")
        size = overview.bounding_box()
        assert size is not None
        overview.click(position={"x": 20, "y": 5})
        expect(last).not_to_be_in_viewport()
        overview.click(position={"x": 20, "y": size["height"] - 5})
        expect(last).to_be_in_viewport()
        page.get_by_label("Budget").evaluate("it => { it.closest('details').open = true }")
        ask(page, Budget=4)
        state(page, "done")
        expect(overview).to_be_hidden()


def test_dark_and_light_have_contrast(browser: Browser, served: Served) -> None:
    """WCAG AA: 4.5 for text, also on the most shaded token."""
    backs = {}
    for scheme in ("light", "dark"):
        with watched(browser.new_context(color_scheme=scheme)) as window:  # type: ignore[arg-type]
            page = opened(window, served)
            page.get_by_label("Known answer").fill("0/7")
            ask(page, Seed=5)
            state(page, "done")
            expect(page.locator("#text .token").first).to_be_visible()
            backs[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            worst = page.evaluate(CONTRAST)
            assert min(worst.values()) >= 4.5, (scheme, worst)
    assert backs["light"] != backs["dark"]


def test_ten_thousand_blocks_are_drawn_as_they_come(context: BrowserContext) -> None:
    beam = Beam(keep=4, branch=4, block=6, groups=16)
    settings = replace(SETTINGS, max_budget=256, beam=beam, sampling=Sampling(max_tokens=240))
    with serving(World(steps=300, slip=0.02), settings) as endpoint:
        page = opened(context, endpoint)
        page.evaluate("""() => {
          window.slowest = 0;
          let last = performance.now();
          const frame = (now) => {
            window.slowest = Math.max(window.slowest, now - last);
            last = now;
            requestAnimationFrame(frame);
          };
          requestAnimationFrame(frame);
        }""")
        ask(page)
        state(page, "done")
        assert page.locator("#box .node").count() == 256 * 40
        assert page.evaluate("window.slowest") < 1500  # milliseconds; 170 on an idle machine
        page.get_by_role("treeitem").last.click()
        expect(page.locator("#node-about")).to_contain_text("Block 40 of group 16")


def test_the_page_is_served_under_a_strict_policy(served: Served) -> None:
    page = httpx.get(served.url)
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for kind in ("script", "style", "connect", "img", "font"):
        assert f"{kind}-src 'self';" in policy
    assert not re.search(r"<style|style=|<script>|\son\w+=|https?:", page.text)
    for path in (
        "/",
        "/static/page.css",
        "/static/modules/main.js",
        "/static/examples.json",
        "/static/katex/katex.min.js",
        "/static/katex/katex.min.css",
        "/static/katex/fonts/KaTeX_Main-Regular.woff2",
    ):
        reply = httpx.get(f"{served.url}{path}")
        assert (reply.status_code, reply.headers["x-content-type-options"]) == (200, "nosniff"), path
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["content-security-policy"] == policy
    missing = httpx.get(f"{served.url}/static/katex/../../app.py")
    assert missing.status_code == 404
    assert "error" in missing.json()


def test_what_the_page_needs_is_in_the_wheel() -> None:
    data = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = data["tool"]["setuptools"]["package-data"]["vgs_ray"]
    root = PAGE.parent.parent
    packed = {file for pattern in patterns for file in root.glob(pattern)}
    css = (PAGE / "katex" / "katex.min.css").read_text()
    fonts = {PAGE / "katex" / name for name in re.findall(r"url\((fonts/[^)]*\.woff2)\)", css)}
    own = {file for kind in ("html", "css", "js", "json", "svg") for file in PAGE.rglob(f"*.{kind}")}
    assert len(own) > 10
    assert max(len(file.read_text().splitlines()) for file in own) <= 300
    assert {PAGE / "katex" / "LICENSE", *own, *fonts} <= packed
