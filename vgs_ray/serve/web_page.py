"""The web page at `/`: one HTML file and KaTeX, with a strict Content-Security-Policy.

The page contains no secret, so it needs no API key; its requests to the endpoint do.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "page"
OPEN_PREFIX = "/static/"
"""Path of the static files of the page and of /docs."""
DOCS_FILES = f"{OPEN_PREFIX}docs"
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
"""With `no-cache`, browsers revalidate a file, so that they show the new page after an upgrade."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Add `GET /` and the files of the page."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    headers = {**HEADERS, "Content-Security-Policy": content_security_policy(html)}

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return Response(html, media_type="text/html", headers=headers)

    app.mount(f"{OPEN_PREFIX}katex", _Files(directory=PAGE / "katex"))


def content_security_policy(html: str) -> str:
    """A policy that allows only this page's own inline script and style, identified by their hashes.

    Styles that a script sets through an element's `style` object, as KaTeX does, do not count as inline styles.
    """
    script, style = (_hashes(html, tag) for tag in ("script", "style"))
    return "; ".join([
        "default-src 'none'", f"script-src 'self' {script}", f"style-src 'self' {style}", "font-src 'self'",
        "img-src data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ])  # fmt: skip


def _hashes(html: str, tag: str) -> str:
    """Hashes of the inline elements with this tag."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
