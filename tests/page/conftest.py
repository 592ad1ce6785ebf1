"""The server and the browser of the page's tests.

They last for one file: while Playwright's browser is open, its event loop runs, and no asynchronous test can.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from page_server import serving, watched
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright
from scripted_server import Served

CHROMIUM = "VGS_RAY_CHROMIUM"
"""Environment variable with the path of a Chromium."""
INSTALLED = ("chromium", "chromium-browser", "google-chrome")
"""Commands of a Chromium from the system's packages. Without any, Playwright's own is used."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, INSTALLED)), None)
        try:
            opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(
                f"no Chromium starts ({str(error).splitlines()[0]}): install one (apt-get install chromium, or "
                f"python -m playwright install chromium), or set {CHROMIUM} to its path"
            )
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A wide window without animations (see `watched`)."""
    opened = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    with watched(opened):
        yield opened
