"""The web page at `/`: files without a build step and KaTeX, with a strict Content-Security-Policy.

The page contains no secret, so it needs no API key; its requests to the endpoint do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "page"
OPEN_PREFIX = "/static/"
"""Path of the static files of the page and of /docs."""
DOCS_FILES = f"{OPEN_PREFIX}docs"
CONTENT_SECURITY_POLICY = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "font-src 'self'", "img-src 'self'", "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
])  # fmt: skip
"""Allows only files and routes of this server, and no inline script or style.

Styles that a script sets through an element's `style` object, as KaTeX does, do not count as inline styles.
"""
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""With `no-cache`, browsers revalidate a file, so that they show the new page after an upgrade."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Add `GET /` and the files of the page. Call it after other files under `OPEN_PREFIX` were added."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=HEADERS)

    app.mount(OPEN_PREFIX, _Files(directory=PAGE))
