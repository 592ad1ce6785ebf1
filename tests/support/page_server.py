"""A server whose scripted engines write LaTeX, and what tests of its page do in a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect
from scripted_server import SETTINGS, WORLD, Moody, Served, running, scripted_searcher

from vgs_ray.config import Sampling, Serve
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score
from vgs_ray.engines.scripted import END, ScriptedValue, World
from vgs_ray.serve.app import create_app

expect.set_options(timeout=15_000)
ANSWER = 10
"""Tokens from this one on state the answer."""


class Writer(Moody):
    """Writes its answer as one token, slowly enough for the tests to see the search run."""

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        await asyncio.sleep(0.02)
        made = await super().extend(prefix, sampling, seed)
        if not made.finished:
            return made
        shift = sum(prefix[1:]) + sum(made.tokens[:-1])
        return made._replace(tokens=(*made.tokens[:-1], ANSWER + shift % 7, END))


@dataclass
class Reader(ScriptedValue):
    async def score(self, tokens: Tokens) -> Score:
        return await super().score(tuple(token for token in tokens if token < ANSWER))


def decode(tokens: Tokens) -> str:
    """Every token has the same text at every position."""
    texts = {0: "so $x_{i+1} = x_i$, ", 1: "hence $x_{i+1} = x_i + 1$, ", END: ""}
    closing = r"</think>" "\n" r"From \(\sqrt{x^2}\) follows $$\sum_i x_i = \frac{%d}{7}$$ and so \boxed{\frac{%d}{7}}"
    return "".join(closing % (token - ANSWER, token - ANSWER) if token >= ANSWER else texts[token] for token in tokens)


@contextmanager
def serving(world: World = WORLD, settings: Serve = SETTINGS) -> Iterator[Served]:
    policy, value = Writer(world), Reader(world)
    context = settings.sampling.max_tokens + 10
    app = create_app(scripted_searcher(policy, value, decode=decode, context=context), settings)
    with running(app) as url:
        yield Served(url, policy, value)


@contextmanager
def watched(context: BrowserContext) -> Iterator[BrowserContext]:
    """Fails if the page sends a request to another host, violates its security policy, or raises in a script."""
    asked: list[str] = []
    wrong: list[str] = []

    def look(page: Page) -> None:
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)

    context.on("page", look)
    context.set_default_timeout(10_000)
    try:
        yield context
    finally:
        context.close()
    assert asked
    assert [url for url in asked if not re.match(r"http://127\.0\.0\.1:|data:", url)] == []
    assert [text for text in wrong if "Failed to load resource" not in text] == []  # a refusal that a test asks for


def opened(context: BrowserContext, served: Served) -> Page:
    page = context.new_page()
    page.goto(served.url)
    expect(page.locator("#model option")).to_have_count(6)
    return page


def ask(page: Page, problem: str = "3", **options: Any) -> None:
    page.get_by_label("Problem", exact=True).fill(problem)
    if options:
        page.locator("#options").evaluate("it => { it.open = true }")
    for name, value in options.items():
        page.get_by_label(name).fill(str(value))
    page.get_by_role("button", name="Search", exact=True).click()


def state(page: Page, name: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-state", name)
