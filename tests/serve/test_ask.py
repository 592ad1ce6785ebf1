"""pipelines.ask against a server with scripted engines."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scripted_server import DIE, Served


def asked(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.ask", *arguments, "--url", f"{url}/v1", "--model", "scripted"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_tree_and_the_vote_are_shown(served: Served) -> None:
    done = asked(served.url, "3", "--budget", "8")
    assert done.returncode == 0, done.stderr
    for text in ("group 0", "group 1", "●", "×", "answer ", "votes ", "of the vote", "generated"):
        assert text in done.stdout, text
    assert "So \\boxed{" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("3", "--budget", "1000"), "at most 32"),
        ((DIE,), "an engine is unavailable"),
        (("3", "--deadline", "0"), "deadline_s"),
    ],
)
def test_errors_are_one_line(served: Served, arguments: tuple[str, ...], said: str) -> None:
    done = asked(served.url, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unreachable_server_is_an_error() -> None:
    done = asked("http://127.0.0.1:9", "3")
    assert done.returncode == 1
    assert "pipelines.serve" in done.stderr
