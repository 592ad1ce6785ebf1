"""Requests to an endpoint. Everything that can fail becomes one line for the user.

In: the endpoint's URL and the body of a chat completion. Out: a whole reply, or the events of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from vgs_ray.errors import UserError

CONNECT_S = 10.0
"""Time limit for a connection in seconds. A search has none."""
DONE = "[DONE]"


class Endpoint(NamedTuple):
    """An endpoint's base URL, which ends with `/v1`, and an API key or an empty text."""

    url: str
    key: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Options of a request: its API key and time limits. The environment's proxy is not used."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"headers": headers, "timeout": httpx.Timeout(None, connect=CONNECT_S)}


def base_url(given: str) -> str:
    """The URL with scheme and `/v1` of an endpoint, from a URL that may lack both.

    Raises:
        UserError: it is not a URL of a web server.
    """
    try:
        url = httpx.URL(given if "://" in given else f"http://{given}")
        if url.scheme in ("http", "https") and url.host:
            path = url.path.rstrip("/")
            return str(url.copy_with(path=path if path.endswith("/v1") else f"{path}/v1", query=None, fragment=None))
    except httpx.InvalidURL:
        pass
    raise UserError(f"--url is {given!r}, which is not a URL of a web server: pass one such as http://127.0.0.1:8000")


def stream_events(endpoint: Endpoint, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event of one request; the name of OpenAI's chunks is empty.

    Raises:
        UserError: no server listens at the URL, it refused the request, the search failed, or the stream ended early.
    """
    with _one_line_errors(endpoint.url):
        options = {**endpoint.options, "json": body, "trust_env": False}
        with httpx.stream("POST", f"{endpoint.url}/chat/completions", **options) as reply:
            if reply.status_code != 200:
                reply.read()
                raise UserError(_refusal(reply))
            event = ""
            for line in reply.iter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    event = text
                elif name == "data" and text == DONE:
                    return
                elif name == "data":
                    yield event, _without_error(json.loads(text))
                    event = ""
    raise UserError(f"{endpoint.url} ended its reply before the search was complete: ask again")


async def whole_reply(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request without a stream. If this is cancelled, the server ends the search.

    Raises:
        UserError: no server listens at the URL, it refused the request, or the search failed.
    """
    with _one_line_errors(endpoint.url):
        async with httpx.AsyncClient(**endpoint.options, trust_env=False) as client:
            reply = await client.post(f"{endpoint.url}/chat/completions", json=body)
        if reply.status_code != 200:
            raise UserError(_refusal(reply))
        return _without_error(reply.json())


@contextmanager
def _one_line_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UserError(
            f"no server answers at {url} ({error or 'no connection'}): start one with python -m pipelines.serve RECIPE, or "
            "pass its --url"
        ) from error
    except httpx.HTTPError as error:
        raise UserError(
            f"the connection to {url} was lost before the reply was complete ({error}): ask again"
        ) from error
    except ValueError as error:
        raise UserError(f"{url} sent a reply that is not JSON: pass the --url of pipelines.serve") from error


def _without_error(data: dict[str, Any]) -> dict[str, Any]:
    if "error" in data:
        raise UserError(str(data["error"]["message"]))
    return data


def _refusal(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}: pass the --url of pipelines.serve"
