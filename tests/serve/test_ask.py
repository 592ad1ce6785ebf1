"""pipelines.ask against a server with scripted engines, in a pipe and in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from scripted_server import DIE, Served

from pipelines.asking.requests import base_url
from pipelines.asking.tree_text import TreeText
from vgs_ray.errors import UserError

ERASE = "\x1b[2K"
COLUMNS = 60


def command(url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.ask", *arguments, "--url", url, "--model", "scripted"]


def asked(url: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a pipe."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), **variables}
    options: Any = {"capture_output": True, "text": True, "check": False, "timeout": 120, "env": environment}
    return subprocess.run(command(url, *arguments), **options)


def in_terminal(url: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """The exit code and the output of the command in a terminal of 60 columns, standard error included."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", **variables}
    with subprocess.Popen(command(url, *arguments), stdin=end, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        output = b""
        while True:
            try:
                output += os.read(terminal, 65536)
            except OSError:  # the process has closed the terminal
                break
    os.close(terminal)
    return process.returncode, output.decode().replace("\r\n", "\n")


def last_screen(output: str) -> str:
    """What is visible: the text after the last line that was erased, without colours."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output.rpartition(ERASE)[2])


def check_tree(text: str) -> None:
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert re.search(r"^    0  [→×●] 0\.\d{3}  ", text, re.MULTILINE)
    assert re.search(r"^    1  [→×●] 0\.\d{3}  ", text, re.MULTILINE)
    assert len(re.findall(r"● .*\\boxed\{\d\}.* <- the answer$", text, re.MULTILINE)) == 1
    assert re.search(r"^votes    \d  +\d of 4 +\d+% of the vote$", text, re.MULTILINE)
    for label in ("answer   ", "likely   unknown: ", "cost     1 prompt, "):
        assert f"\n{label}" in text


def test_a_pipe_gets_the_tree_and_the_vote_and_no_codes_of_terminals(served: Served) -> None:
    done = asked(served.url, "3", "--budget", "8")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    check_tree(done.stdout)


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_shows_the_same(served: Served, variables: dict[str, str]) -> None:
    code, output = in_terminal(served.url, "3", "--budget", "8", **variables)
    assert code == 0, output
    assert (ERASE in output) == ("TERM" not in variables)
    assert "\x1b" not in output if "TERM" in variables else "\x1b[32m" not in output or "NO_COLOR" not in variables
    check_tree(last_screen(output))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("3", "--budget", "1000"), "at most 32"),
        ((DIE,), "an engine is unavailable"),
        ((DIE, "--compare"), "an engine is unavailable"),
    ],
)
def test_an_error_is_one_line_and_the_only_one(served: Served, arguments: tuple[str, ...], said: str) -> None:
    done = asked(f"{served.url}/v1", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("error: ") == len(done.stderr.splitlines())


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_an_error_is_all_that_stays_in_a_terminal(served: Served, variables: dict[str, str]) -> None:
    code, output = in_terminal(served.url, DIE, **variables)
    assert code == 1
    assert re.fullmatch(r"error: an engine is unavailable; .*\n", last_screen(output)), output
    assert "\x1b[?25l" not in output or "\x1b[?25h" in output, "the cursor is hidden"


def test_a_comparison_is_a_table_of_the_three_and_marks_what_is_right(served: Served) -> None:
    done = asked(served.url, "3", "--budget", "8", "--compare", "--known", "0")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["policy", "majority", "scripted"]
    cells = {row.split()[0]: re.split(r"  +", row)[1:] for row in rows}
    assert list(cells) == ["answer", "votes", "tokens", "seconds", "grade"]  # no FLOPs, no probability
    assert cells["votes"][0] == "1 of 1"
    assert [votes.partition(" of ")[2] for votes in cells["votes"][1:]] == ["8", "4"]
    assert int(cells["tokens"][0]) < int(cells["tokens"][1])
    assert cells["grade"] == ["right" if answer == "0" else "wrong" for answer in cells["answer"]]


def test_a_comparison_shows_what_did_not_fail(served: Served) -> None:
    done = asked(served.url, "3", "--budget", "1000", "--compare")
    assert done.returncode == 1
    assert re.search(r"^answer +\d +failed +failed$", done.stdout, re.MULTILINE)
    assert [line.partition(": search.budget")[0] for line in done.stderr.splitlines()] == [
        "error: majority", "error: scripted",
    ]  # fmt: skip


def test_an_unreachable_server_is_an_error() -> None:
    done = asked("127.0.0.1:9", "3")
    assert done.returncode == 1
    assert "no server answers at http://127.0.0.1:9/v1" in done.stderr
    assert "pipelines.serve" in done.stderr


@pytest.mark.parametrize("given", ["http://h:8000", "http://h:8000/", "h:8000", "http://h:8000/v1/"])
def test_the_url_needs_no_v1(given: str) -> None:
    assert base_url(given) == "http://h:8000/v1"


@pytest.mark.parametrize("given", ["ftp://h", "http://", "http://h:x"])
def test_other_urls_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="--url"):
        base_url(given)


def test_deep_and_equal_blocks_fit_a_narrow_terminal_and_control_nothing() -> None:
    tree = TreeText()

    def add(number: int, parent: int, state: str, text: str) -> None:
        block = {
            "id": str(number),
            "parent": str(parent),
            "group": 0,
            "state": state,
            "value": 0.5,
            "text": text,
            "tokens": 1,
        }
        tree.add(block)

    for depth in range(3000):  # two paths that go on in each round
        add(2 * depth + 1, max(2 * depth - 1, 0), "kept", "a\x1b[31mb\n")
        add(2 * depth + 2, max(2 * depth, 0), "kept", "c" * 200)
    for number in (9001, 9002):
        add(number, 5999, "finished", f"{'x' * 90} so 7")
    lines = [line.plain for line in tree.lines(COLUMNS, "9002")]
    assert max(map(len, lines)) <= COLUMNS
    assert not [line for line in lines if not line.isprintable()]
    assert len(lines) == 2 + 6000 + 1
    [answer] = [line for line in lines if line.endswith("so 7 (2 equal) <- the answer")]
    assert answer.count("●") == 1
    assert len(tree.newest(COLUMNS, 10).plain.splitlines()) <= 10
