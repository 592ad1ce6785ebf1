"""The page at `/`: one HTML file and KaTeX beside it, under a policy that lets nothing else run and nobody else be asked.

In: the files in `page/`. Out: routes of the application. The page holds no secret, so it opens without an API key; what it
asks the endpoint needs one as ever.
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
"""Of the page's own files, and of those of /docs."""
DOCS_FILES = f"{OPEN_PREFIX}docs"
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
"""`no-cache` has browsers ask whether a file is still the same, so that an upgraded server shows its own page."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(SAFE)
        return response


def add_page(app: FastAPI) -> None:
    """`GET /` and the files that it needs."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    headers = {**SAFE, "Content-Security-Policy": policy_of(html)}

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return Response(html, media_type="text/html", headers=headers)

    app.mount(f"{OPEN_PREFIX}katex", _Files(directory=PAGE / "katex"))


def policy_of(html: str) -> str:
    """The Content-Security-Policy that lets this page's own script and style run, by their hashes, and no others.

    Styles that a script sets through an element's `style` object, as KaTeX does, are not inline styles to it.
    """
    script, style = (_hashes(html, tag) for tag in ("script", "style"))
    return "; ".join([
        "default-src 'none'", f"script-src 'self' {script}", f"style-src 'self' {style}", "font-src 'self'",
        "img-src data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ])  # fmt: skip


def _hashes(html: str, tag: str) -> str:
    """Of each element of that name that has its text in the page."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
