"""ask: a problem to a running endpoint, with the tree as it grows: python -m pipelines.ask PROBLEM [--url URL].

Start the endpoint first: python -m pipelines.serve RECIPE. A key is read from VGS_RAY_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

URL = "http://127.0.0.1:8000/v1"
KEY = "VGS_RAY_API_KEY"
SHOWN_CHARS = 60
COLOURS = ("red", "dark_orange", "yellow", "green_yellow", "green")
"""Of values from 0 to 1."""
START, NODE = "vgs_ray.start", "vgs_ray.node"
MARKS = {"kept": "→", "pruned": "×", "finished": "●", "length": "…"}


class AskError(Exception):
    """What the person who asked can mend."""


def events(url: str, body: dict[str, Any], key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) of the stream of one search.

    Raises:
        AskError: nobody listens there, or the server refused the request or failed.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream(
            "POST", f"{url}/chat/completions", json=body, headers=headers, timeout=None, trust_env=False
        ) as reply:
            if reply.status_code != 200:
                reply.read()
                raise AskError(_message(reply))
            event = ""
            for line in reply.iter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    event = text
                elif name == "data" and text != "[DONE]":
                    data = json.loads(text)
                    if "error" in data:
                        raise AskError(data["error"]["message"])
                    yield event, data
                    event = ""
    except httpx.HTTPError as error:
        raise AskError(
            f"nobody answers at {url} ({error}): start python -m pipelines.serve RECIPE, or name its address with --url"
        ) from error


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}"


class Picture:
    """The tree so far, for a terminal: a branch for each group, a line for each block, coloured by value."""

    def __init__(self, problem: str) -> None:
        self.tree = Tree(Text(_cut(problem), style="bold"))
        self._groups: dict[int, Tree] = {}
        self._nodes: dict[int, Tree] = {}

    def add(self, node: dict[str, Any]) -> None:
        """Append a block of an event."""
        group = node["group"]
        if group not in self._groups:
            self._groups[group] = self.tree.add(Text(f"group {group}", style="dim"))
        parent = self._nodes.get(node["parent"], self._groups[group])
        value = node["value"]
        style = "dim" if node["state"] == "pruned" or value is None else COLOURS[min(int(value * 5), 4)]
        shown = "  -  " if value is None else f"{value:.3f}"
        line = f"{MARKS[node['state']]} {shown}  {_cut(node['text'])}"
        self._nodes[node["id"]] = parent.add(Text(line, style=style))


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARS else f"{flat[: SHOWN_CHARS - 1]}…"


def ask(url: str, body: dict[str, Any], console: Console) -> dict[str, Any]:
    """Show the search while it runs; returns what the reply says of it under `vgs_ray`, with its usage and its text."""
    picture, said = Picture(body["messages"][-1]["content"]), ""
    found: dict[str, Any] = {}
    with Live(picture.tree, console=console, refresh_per_second=8, vertical_overflow="ellipsis") as live:
        for event, data in events(url, body, os.environ.get(KEY, "")):
            if event == NODE:
                picture.add(data)
            if event == START and data["queue_position"]:
                live.console.print(f"the server is busy: number {data['queue_position']} in its queue")
            if event:
                continue
            said += "".join(choice["delta"].get("content") or "" for choice in data["choices"])
            found |= data.get("vgs_ray", {})
            found |= {"tokens": data["usage"]} if data.get("usage") else {}
        live.refresh()
    if not console.is_terminal:
        console.print()  # `Live` leaves the end of its last line to the terminal
    return {**found, "text": said}


def show(found: dict[str, Any], console: Console) -> None:
    """The answer, the vote and what it cost."""
    value = "unknown" if found["value"] is None else f"{found['value']:.3f}"
    votes = "   ".join(f"{vote['answer']}: {vote['weight']:.2f} ({vote['leaves']})" for vote in found["votes"][:5])
    rows = {
        "answer": found["answer"] or "none",
        "value": f"{value}   P(correct) by the value model",
        "votes": votes or "none",
        "usage": spent(found, found["tokens"]),
    }
    if found["text"]:
        console.print(found["text"], markup=False)
    for name, text in rows.items():
        console.print(f"{name:<9} {text}", markup=False, highlight=False)


def spent(found: dict[str, Any], usage: dict[str, Any]) -> str:
    """What a search cost, from a reply's `vgs_ray` and its usage, in one line; FLOPs where the server knows them."""
    flops = "" if found["flops"] is None else f", {found['flops']:.2e} FLOPs"
    return (
        f"{usage['prompt_tokens']:,} prompt, {found['usage']['generated']:,} generated, "
        f"{found['usage']['scored']:,} scored tokens{flops} in {found['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.ask", description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("--url", default=URL, help=f"of the endpoint; default {URL}")
    parser.add_argument("--model", default="vgs", help="a name that GET /v1/models lists; default vgs")
    parser.add_argument("--budget", type=int, help="generations side by side; default: the server's")
    parser.add_argument("--deadline", type=float, help="seconds")
    given = parser.parse_args()
    search = {"events": True, "budget": given.budget, "deadline_s": given.deadline}
    body = {
        "model": given.model,
        "messages": [{"role": "user", "content": given.problem}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "search": {name: value for name, value in search.items() if value is not None},
    }
    console = Console(highlight=False)
    try:
        show(ask(given.url.rstrip("/"), body, console), console)
    except AskError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the search has been ended")


if __name__ == "__main__":
    main()
