"""ask: send a problem to a running endpoint and show its search tree: python -m pipelines.ask PROBLEM [--url URL].

Start the endpoint first with python -m pipelines.serve RECIPE. The API key is read from VGS_RAY_API_KEY.
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

from vgs_ray.errors import UserError

URL = "http://127.0.0.1:8000/v1"
KEY = "VGS_RAY_API_KEY"
SHOWN_CHARS = 60
COLOURS = ("red", "dark_orange", "yellow", "green_yellow", "green")
"""Colours of the values from 0 to 1."""
START, NODE = "vgs_ray.start", "vgs_ray.node"
MARKS = {"kept": "→", "pruned": "×", "finished": "●", "length": "…"}


def stream_events(url: str, body: dict[str, Any], key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event of one request.

    Raises:
        UserError: no server listens at the URL, it refused the request, or the search failed.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream(
            "POST", f"{url}/chat/completions", json=body, headers=headers, timeout=None, trust_env=False
        ) as reply:
            if reply.status_code != 200:
                reply.read()
                raise UserError(_error_message(reply))
            event = ""
            for line in reply.iter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    event = text
                elif name == "data" and text != "[DONE]":
                    data = json.loads(text)
                    if "error" in data:
                        raise UserError(data["error"]["message"])
                    yield event, data
                    event = ""
    except httpx.HTTPError as error:
        raise UserError(
            f"no server answers at {url} ({error}): start one with python -m pipelines.serve RECIPE, or pass its --url"
        ) from error


def _error_message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}"


class TreeView:
    """The search tree for a terminal: a branch for each group and a line for each block, coloured by value."""

    def __init__(self, problem: str) -> None:
        self.tree = Tree(Text(_shortened(problem), style="bold"))
        self._groups: dict[int, Tree] = {}
        self._nodes: dict[int, Tree] = {}

    def add(self, node: dict[str, Any]) -> None:
        """Add the block of an event."""
        group = node["group"]
        if group not in self._groups:
            self._groups[group] = self.tree.add(Text(f"group {group}", style="dim"))
        parent = self._nodes.get(node["parent"], self._groups[group])
        value = node["value"]
        style = "dim" if node["state"] == "pruned" or value is None else COLOURS[min(int(value * 5), 4)]
        shown = "  -  " if value is None else f"{value:.3f}"
        line = f"{MARKS[node['state']]} {shown}  {_shortened(node['text'])}"
        self._nodes[node["id"]] = parent.add(Text(line, style=style))


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARS else f"{flat[: SHOWN_CHARS - 1]}…"


def show_search(url: str, body: dict[str, Any], console: Console) -> dict[str, Any]:
    """Show the tree while the search runs. Returns the reply's `vgs_ray`, with its usage as `tokens` and its text as `text`."""
    view, text = TreeView(body["messages"][-1]["content"]), ""
    result: dict[str, Any] = {}
    with Live(view.tree, console=console, refresh_per_second=8, vertical_overflow="ellipsis") as live:
        for event, data in stream_events(url, body, os.environ.get(KEY, "")):
            if event == NODE:
                view.add(data)
            if event == START and data["queue_position"]:
                live.console.print(f"the server is busy: position {data['queue_position']} in its queue")
            if event:
                continue
            text += "".join(choice["delta"].get("content") or "" for choice in data["choices"])
            result |= data.get("vgs_ray", {})
            result |= {"tokens": data["usage"]} if data.get("usage") else {}
        live.refresh()
    if not console.is_terminal:
        console.print()  # `Live` does not end its last line
    return {**result, "text": text}


def show_result(result: dict[str, Any], console: Console) -> None:
    """Print the text of a reply and what `result_rows` says about it."""
    if result["text"]:
        console.print(result["text"], markup=False)
    for name, text in result_rows(result, result["tokens"]).items():
        console.print(f"{name:<9} {text}", markup=False, highlight=False)


def result_rows(result: dict[str, Any], usage: dict[str, Any]) -> dict[str, str]:
    """The answer, how likely it is, the votes and the usage as text, from a reply's `vgs_ray` and its usage."""
    votes = "   ".join(f"{vote['answer']}: {vote['weight']:.2f} ({vote['leaves']})" for vote in result["votes"][:5])
    return {
        "answer": result["answer"] or "none",
        "likely": likely_text(result),
        "votes": votes or "none",
        "usage": usage_text(result, usage),
    }


def likely_text(result: dict[str, Any]) -> str:
    """The probability of the answer, its share of the vote and its value, as far as the reply has them."""
    tie = ", almost tied" if result["undecided"] else ""
    forms = {
        "probability": "{:.0%} likely to be correct, as measured by the evaluation",
        "share": "{:.0%} of the vote" + tie,
        "value": "highest value {:.2f}",
    }
    known = [form.format(result[name]) for name, form in forms.items() if result[name] is not None]
    return "; ".join(known) or "unknown"


def usage_text(result: dict[str, Any], usage: dict[str, Any]) -> str:
    """The cost of a search in one line, from a reply's `vgs_ray` and its usage. FLOPs are left out if the server has none."""
    flops = "" if result["flops"] is None else f", {result['flops']:.2e} FLOPs"
    return (
        f"{usage['prompt_tokens']:,} prompt, {result['usage']['generated']:,} generated, "
        f"{result['usage']['scored']:,} scored tokens{flops} in {result['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.ask", description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("--url", default=URL, help=f"URL of the endpoint; default {URL}")
    parser.add_argument("--model", default="vgs", help="model name, as listed by GET /v1/models; default vgs")
    parser.add_argument("--budget", type=int, help="number of parallel generations; default: that of the server")
    parser.add_argument("--deadline", type=float, help="time limit of the search in seconds")
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
        show_result(show_search(given.url.rstrip("/"), body, console), console)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the server ends the search")


if __name__ == "__main__":
    main()
