"""jobs/submit.sh against the job server of a Ray cluster that requires a token, and jobs/paper.sh."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipelines import submit
from pipelines.recipes import RECIPES
from pipelines.serving.ingress import free_ports
from vgs_ray.errors import UserError

ROOT = Path(__file__).parents[2]
UNREACHABLE = "http://127.0.0.1:9"
PAUSE = "#!/bin/sh\ntrap 'exit 3' TERM\necho started\nwhile :; do sleep 0.1; done\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which jobs/submit.sh reaches the cluster. The jobs run this Python."""
    folder = tmp_path_factory.mktemp("submit")
    (folder / "token").write_text("a" * 64)
    token = {"RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    gcs, dashboard, agent = free_ports(3)
    session = tempfile.mkdtemp(dir="/tmp")  # the path of a socket has at most 107 characters
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1", f"--port={gcs}",
        "--include-dashboard=true", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--temp-dir={session}", "--object-store-memory=80000000", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            command,
            env={**os.environ, **token, "RAY_AUTH_MODE": "token"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(lambda: head.poll() is not None or answers(address))
        assert head.poll() is None, (folder / "head.log").read_text()
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "VGS_"))},
            **token, "RAY_API_SERVER_ADDRESS": address, "VGS_PYTHON": sys.executable, "VGS_ROOT": str(folder / "runs"),
        }  # fmt: skip
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        shutil.rmtree(session)


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/api/version", timeout=1).status_code == 401
    except requests.RequestException:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"jobs/{script}.sh", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_output_and_the_exit_code_of_the_stage_are_passed_on(environment: dict[str, str]) -> None:
    plan = run("submit", "plan", "sandbox", **environment)
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "tokens/s" in plan.stdout
    label = run("submit", "label", "sandbox", **environment)
    assert label.returncode == 2
    assert "stage 'clean' is not complete" in label.stdout  # the stage's message, from the cluster
    killed = Path(environment["VGS_ROOT"]).with_name("killed.sh")
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    assert run("submit", "plan", "sandbox", **{**environment, "VGS_PYTHON": str(killed)}).returncode == 137


def test_after_ctrl_c_the_job_goes_on_and_is_followed_again(environment: dict[str, str]) -> None:
    pause = Path(environment["VGS_ROOT"]).with_name("pause.sh")
    pause.write_text(PAUSE)
    pause.chmod(0o755)
    environment = {**environment, "VGS_PYTHON": str(pause)}
    first = subprocess.Popen(
        ["jobs/submit.sh", "plan", "sandbox"], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    job = re.findall(r"job (\S+) submitted", first.stdout.readline())[0]
    assert "started\n" in first.stdout
    first.send_signal(signal.SIGINT)
    _, text = first.communicate(timeout=120)
    assert first.returncode == 130
    assert f"job {job} still runs" in text
    logs, stop = re.findall(r"(RAY_AUTH_MODE=token ray job (?:logs|stop) .*?)(?:   |$)", text, re.M)
    assert job in logs
    again = subprocess.Popen(
        ["jobs/submit.sh", "plan", "sandbox"], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert again.stdout is not None
    assert again.stdout.readline() == f"job {job} already runs this command\n"
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(["sh", "-c", stop], env={**environment, "PATH": path}, check=True, capture_output=True)
    _, text = again.communicate(timeout=120)
    assert again.returncode == 1
    assert f"job {job} was stopped" in text


@pytest.mark.filterwarnings("ignore:ssl=None:DeprecationWarning")  # of Ray's client
def test_a_job_server_that_is_silent_or_new_is_noticed(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that is lost closes no connection."""
    pause = Path(environment["VGS_ROOT"]).with_name("pause.sh")
    pause.write_text(PAUSE)
    pause.chmod(0o755)
    started = run("submit", "plan", "sandbox", "--no-wait", **{**environment, "VGS_PYTHON": str(pause)})
    job = re.findall(r"job (\S+) (?:submitted|already)", started.stdout)[0]
    address = environment["RAY_API_SERVER_ADDRESS"]
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, {**environment, "RAY_AUTH_MODE": "token"}[name])
    monkeypatch.setattr(submit, "CHECK_S", 0.5)
    monkeypatch.setattr(submit, "LOST_S", 2.0)
    client = submit.connect(address)
    port = f"--port={address.rpartition(':')[2]}"
    [server] = [each for each in psutil.process_iter(["cmdline"]) if port in (each.info["cmdline"] or [])]
    silence = threading.Timer(1.0, server.suspend)
    silence.start()
    try:
        assert submit.follow(client, job) == 1
    finally:
        silence.join()
        server.resume()
    assert f"(it has not replied for 2 s); job {job} may still run" in capsys.readouterr().err
    client.stop_job(job)
    with pytest.raises(RuntimeError, match="does not know the job"):
        asyncio.run(submit.print_output(OneLine(client.get_address(), 600), "another"))


def test_a_job_server_that_replies_late_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"CHECK_S": 0.1, "LOST_S": 1.5}.items():
        monkeypatch.setattr(submit, name, value)

    async def reply_late(request: web.Request) -> web.Response:
        await asyncio.sleep(0.8)
        return web.Response()

    async def follow() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", reply_late)
        async with TestServer(app) as server:
            await submit.print_output(OneLine(str(server.make_url("")), 3), "job")

    asyncio.run(follow())
    assert capsys.readouterr().out == "job"


class OneLine:
    """The client of a job that prints one line, after some seconds."""

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address.rstrip("/"), seconds

    def get_address(self) -> str:
        return self._address

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        await asyncio.sleep(self._seconds)
        yield job


def test_a_wrong_token_is_one_line(environment: dict[str, str]) -> None:
    done = run("submit", "plan", "sandbox", **{**environment, "RAY_AUTH_TOKEN": "b" * 64})
    assert done.returncode == 2
    assert done.stderr.startswith("submit: the job server at http://127.0.0.1:")
    assert "refuses the token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "sandbox", "--label.kindd", "x"], "option --label.kindd does not exist"),
        (["label", "sandbox", "--train.steps", "-1"], "train.steps is -1"),
        (["label", "sandboxx"], "recipe 'sandboxx' does not exist"),
        (["lable", "sandbox"], "command 'lable' does not exist"),
        (["label"], "needs a recipe"),
        (["label", "sandbox", "--from-trees"], "--from-trees does not exist"),
        (["label", "sandbox"], "no job server responds at http://127.0.0.1:9"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", UNREACHABLE)
    with pytest.raises(UserError, match=re.escape(message)):
        submit.main(arguments)


def test_dry_run_prints_the_command_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", UNREACHABLE)
    monkeypatch.setenv("VGS_ROOT", "s3://bucket/my runs")
    assert submit.main(["evaluate", "sandbox", "--from-trees", "--dry-run", "--seed", "7"]) == 0
    options, line = capsys.readouterr().out.strip().split(" -- ")
    assert f"ray job submit --address {UNREACHABLE} --working-dir {ROOT}" in options
    assert shlex.split(line) == [
        *"python -m pipelines.evaluate sandbox --from-trees --seed 7 --root".split(),
        "s3://bucket/my runs",
    ]


def test_every_command_with_a_recipe_can_be_submitted() -> None:
    commands = {path.stem for path in ROOT.glob("pipelines/*.py") if "\n    cli(" in path.read_text()}
    assert set(submit.COMMANDS) == commands


def test_paper_runs_the_stages_of_its_recipe_and_stops_at_a_failure() -> None:
    stages = re.findall(r"^for stage in (.*); do", (ROOT / "jobs/paper.sh").read_text(), re.M)
    assert stages == [" ".join(RECIPES["vgs"]().stages)]
    done = run("paper", **{**os.environ, "RAY_API_SERVER_ADDRESS": UNREACHABLE})
    assert done.returncode == 2
    assert done.stderr.count("no job server responds") == 1
    assert run("paper", "--no-wait").returncode == 2
