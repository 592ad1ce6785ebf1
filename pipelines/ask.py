"""ask: send a problem to a running endpoint and show its search tree: python -m pipelines.ask PROBLEM [--url URL].

Start the endpoint first with python -m pipelines.serve RECIPE. The API key is read from VGS_RAY_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from pipelines.asking.reply_text import compare_table, labelled, reply_rows
from pipelines.asking.requests import Endpoint, base_url, stream_events, whole_reply
from pipelines.asking.tree_text import TreeText, printable
from vgs_ray.answers.judge import Judge
from vgs_ray.errors import UserError
from vgs_ray.serve.events import NODE, START

URL = "http://127.0.0.1:8000"
KEY = "VGS_RAY_API_KEY"
BASELINES = ("policy", "majority")
"""Models of the endpoint that `--compare` asks too."""


def main() -> None:
    given = arguments().parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if console.is_dumb_terminal:  # of which rich assumes 80 columns
        console.size = ConsoleDimensions(*shutil.get_terminal_size())
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without UTF-8 shows ? for the marks
    try:
        endpoint = Endpoint(base_url(given.url), os.environ.get(KEY, ""))
        (compare if given.compare else show)(endpoint, given, console)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the server ends the search")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.ask", description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("--url", default=URL, help=f"URL of the endpoint; default {URL}")
    parser.add_argument("--model", default="vgs", help="model name, as listed by GET /v1/models; default vgs")
    parser.add_argument("--budget", type=int, help="number of parallel generations; default: that of the server")
    parser.add_argument("--deadline", type=float, help="time limit of the search in seconds")
    parser.add_argument("--known", metavar="ANSWER", help="the correct answer; shows which answers are right")
    parser.add_argument(
        "--compare", action="store_true",
        help="also ask the plain policy and its majority vote, at the same time, and show a table",
    )  # fmt: skip
    return parser


def request(given: argparse.Namespace, model: str, **search: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    # The plain policy generates one answer.
    options = {"budget": None if model == "policy" else given.budget, "deadline_s": given.deadline, **search}
    return {
        "model": model,
        "messages": [{"role": "user", "content": given.problem}],
        "search": {name: value for name, value in options.items() if value is not None},
    }


def show(endpoint: Endpoint, given: argparse.Namespace, console: Console) -> None:
    """Search, and print the tree, the reply's text and what it says.

    A terminal shows the newest blocks while the search runs. They are removed at its end, so that neither the tree nor an error
    follows a part of a tree.
    """
    tree, text, queued = TreeText(), "", 0
    search: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    body = request(given, given.model, events=True) | {"stream": True, "stream_options": {"include_usage": True}}

    def shown() -> Any:
        waits = f"the server is busy: position {queued} in its queue"
        return waits if queued and not tree.blocks else tree.newest(console.width, console.height)

    moves = console.is_terminal and not console.is_dumb_terminal
    with Live(get_renderable=shown, console=console, transient=True, refresh_per_second=8) if moves else nullcontext():
        for event, data in stream_events(endpoint, body):
            if event == NODE:
                tree.add(data)
            if event == START:
                queued = data["queue_position"]
            if not event:
                text += "".join(choice["delta"].get("content") or "" for choice in data["choices"])
                search |= data.get("vgs_ray") or {}
                usage |= data.get("usage") or {}
    if not (search and usage):
        raise UserError(f"the reply of {endpoint.url} has no vote: pass the --url of pipelines.serve")
    for line in tree.lines(console.width, search["node"]):
        console.print(line)
    print_reply(text, search, usage, given, console)


def print_reply(
    text: str, search: dict[str, Any], usage: dict[str, Any], given: argparse.Namespace, console: Console
) -> None:
    """Print the text of a reply, and what it says."""
    rows = reply_rows(search, usage)
    if given.known is not None:
        rows["answer"][0] += f" ({judged([search['answer']], given.known)[search['answer']]})"
    said = [*map(printable, text.splitlines()), ""] if text else []
    console.print("", *said, labelled(rows, console.width), sep="\n", markup=False)


def compare(endpoint: Endpoint, given: argparse.Namespace, console: Console) -> None:
    """Ask several models at the same time and print a table.

    Raises:
        UserError: a request failed; the table has the others.
    """
    names = dict.fromkeys((*BASELINES, given.model))

    async def ask_all() -> list[dict[str, Any] | BaseException]:
        asked = (whole_reply(endpoint, request(given, name)) for name in names)
        return await asyncio.gather(*asked, return_exceptions=True)

    with console.status(f"asking {', '.join(names)}") if console.is_terminal else nullcontext():
        replies = dict(zip(names, asyncio.run(ask_all()), strict=True))
    failed = {name: reply for name, reply in replies.items() if isinstance(reply, BaseException)}
    answered = {name: {} if isinstance(reply, BaseException) else reply for name, reply in replies.items()}
    if len(failed) < len(names):
        answers = [reply["vgs_ray"]["answer"] for reply in answered.values() if reply]
        grades = {} if given.known is None else judged(answers, given.known)
        console.print(compare_table(answered, grades, console.width), markup=False)
    for error in failed.values():
        if not isinstance(error, UserError):
            raise error
    if failed:
        causes = [str(error) for error in failed.values()]
        named = "\nerror: ".join(f"{name}: {cause}" for name, cause in zip(failed, causes, strict=True))
        raise UserError(causes[0] if len({*causes}) == 1 else named)


def judged(answers: Sequence[str | None], known: str) -> dict[str | None, str]:
    """Whether each answer equals the known one: `right`, `wrong` or `unknown`. None is wrong."""
    with Judge(workers=1) as judge:
        equal = judge.equivalent_pairs((known, answer) for answer in answers if answer is not None)
    names = {True: "right", False: "wrong", None: "unknown"}
    return {answer: "wrong" if answer is None else names[equal[known, answer]] for answer in answers}


if __name__ == "__main__":
    main()
