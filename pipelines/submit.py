"""submit: run a command of this package as a job on a Ray cluster, print its output, and end with its exit code.

In: the command line of a stage. Out: a Ray job that runs the same line in a copy of this checkout. The recipe and its options are
checked here, before anything is sent. If the cluster already runs the same line, that job is followed instead of a second one.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import shlex
import sys
import time
from http import HTTPStatus
from pathlib import Path

import aiohttp
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipelines.cli import FIELDS, parse
from vgs_ray.config import Recipe
from vgs_ray.errors import UserError

ROOT = Path(__file__).parents[1]
COMMANDS = tuple(FIELDS)
CHECK_S, LOST_S = 10.0, 60.0
"""Seconds between two questions to the job server, and seconds without a reply after which the connection is lost."""
DRY_RUN, NO_WAIT = "--dry-run", "--no-wait"
USAGE = f"""\
usage: jobs/submit.sh COMMAND RECIPE [{DRY_RUN}] [{NO_WAIT}] [--section.field VALUE ...]

  COMMAND     {", ".join(COMMANDS[:9])},
              {", ".join(COMMANDS[9:])}
  RECIPE      sandbox, vgs, ... (jobs/submit.sh COMMAND RECIPE --help lists the options)
  {DRY_RUN}   check the recipe and its options, print the `ray job submit` command, and send nothing
  {NO_WAIT}   return after submission

Ctrl-C ends this program, not the job. The exit code is that of the command on the cluster.

environment:
  RAY_API_SERVER_ADDRESS, RAY_ADDRESS   job server of the cluster (default: http://127.0.0.1:8265)
  RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH   token, or its file, of a cluster that requires one (default: ~/.ray/auth_token)
  VGS_ROOT      folder of all runs, the same path on every node, or a URL; becomes --root (default: runs/ in this checkout)
  VGS_PYTHON    Python on the cluster (default: python)"""


def main(arguments: list[str]) -> int:
    """Submit the command and follow it. Returns the exit code."""
    own = {DRY_RUN, NO_WAIT}.intersection(arguments)
    rest = [argument for argument in arguments if argument not in own]
    if not rest or rest[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if rest else 2
    recipe, line = check(rest)
    address = server_address()
    if DRY_RUN in own:
        print(f"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES= ray job submit --address {address} --working-dir {ROOT} "
              f"--runtime-env {ROOT / 'jobs/runtime_env.yaml'} -- {line}")  # fmt: skip
        return 0
    client = connect(address)
    try:
        job = submit(client, f"{recipe.folder.name}-{rest[0]}-{time.strftime('%Y%m%d-%H%M%S')}", line)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the job server at {address} did not accept the job ({error}): repeat the command; it follows the job if that runs"
        ) from None
    return 0 if NO_WAIT in own else follow(client, job)


def check(arguments: list[str]) -> tuple[Recipe, str]:
    """Parse the command line as the stage does.

    Returns:
        The recipe, and the shell command of the job.

    Raises:
        UserError: the stage would refuse the arguments, or the cluster would not find the run folder.
    """
    if len(arguments) < 2:
        raise UserError(f"command {arguments[0]} needs a recipe, for example: jobs/submit.sh {arguments[0]} sandbox")
    command, name, *options = arguments
    if command not in COMMANDS:
        raise UserError(f"command {command!r} does not exist; it must be one of: {', '.join(COMMANDS)}")
    flags = getattr(importlib.import_module(f"pipelines.{command}"), "Flags", None)
    root = os.environ.get("VGS_ROOT") or str(ROOT / "runs")
    recipe = parse(f"pipelines.{command}", [name, "--root", root, *options], flags() if flags else None)
    python = os.environ.get("VGS_PYTHON", "python")
    # The job runs in a temporary copy of this checkout, so its tables need an absolute path. The last --root counts.
    return recipe, shlex.join([python, "-m", f"pipelines.{command}", name, *options, "--root", recipe.root])


def server_address() -> str:
    """The address of the job server. It is removed from the environment, because Ray prefers it there to the argument.

    Raises:
        UserError: it is not an HTTP address.
    """
    found = [os.environ.pop(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")]
    address = next(filter(None, found), "http://127.0.0.1:8265").rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"the address {address!r} is not an HTTP address of a job server: set RAY_API_SERVER_ADDRESS, for example to "
            "http://127.0.0.1:8265"
        )
    return address


def connect(address: str) -> JobSubmissionClient:
    """A client of the job server, with this machine's token if the server requires one.

    Raises:
        UserError: no job server answers, or it refuses the token.
    """
    try:
        try:
            return JobSubmissionClient(address)
        except AuthenticationError:
            os.environ["RAY_AUTH_MODE"] = "token"
            return JobSubmissionClient(address, headers=token_headers())
    except AuthenticationError:
        raise UserError(
            f"the job server at {address} refuses the token of this machine: set RAY_AUTH_TOKEN_PATH to a copy of the cluster's "
            "token (on the head node: ray get-auth-token)"
        ) from None
    except (OSError, RuntimeError):
        raise UserError(
            f"no job server responds at {address}: start a cluster (ray start --head --include-dashboard=true), forward its port "
            "8265, or set RAY_API_SERVER_ADDRESS"
        ) from None


def token() -> str:
    """The token that Ray would use on this machine; empty if there is none."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return os.environ.get("RAY_AUTH_TOKEN") or (path.read_text().strip() if path.is_file() else "")


def token_headers() -> dict[str, str]:
    """HTTP headers for a job server that requires a token."""
    return {"Authorization": f"Bearer {token()}"} if os.environ.get("RAY_AUTH_MODE") == "token" else {}


def submit(client: JobSubmissionClient, job: str, line: str) -> str:
    """Submit the shell command as a job, unless one with the same command runs already. Returns the job's id."""
    for other in client.list_jobs():
        if other.submission_id and other.entrypoint == line and not other.status.is_terminal():
            print(f"job {other.submission_id} already runs this command", flush=True)
            return other.submission_id
    environment = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
    os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = ""  # the file has them; Ray prints a line about each
    client.submit_job(entrypoint=line, submission_id=job, runtime_env={**environment, "working_dir": str(ROOT)})
    print(f"job {job} submitted: {line}", flush=True)
    return job


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the job's output until it ends. Returns its exit code, 1 if there is none, 130 after Ctrl-C."""
    try:
        asyncio.run(print_output(client, job))
        info = client.get_job_info(job)
    except KeyboardInterrupt:
        return leave(client, f"interrupted; job {job} still runs", job, 130)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        return leave(client, f"the connection to the job server is lost ({error}); job {job} may still run", job, 1)
    if not info.status.is_terminal():
        return leave(client, f"the job server has closed the connection; job {job} may still run", job, 1)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.driver_exit_code is None:
        print(f"submit: job {job} was stopped or could not run: {info.message}", file=sys.stderr)
        return 1
    return info.driver_exit_code if info.driver_exit_code > 0 else 128 - info.driver_exit_code


async def print_output(client: JobSubmissionClient, job: str) -> None:
    """Print the job's output until it ends, and ask the job server about the job meanwhile.

    The connection that brings the output is silent for minutes at a time, and nothing else shows that the other end is gone.

    Raises:
        OSError: the job server has not replied for `LOST_S` seconds.
        RuntimeError: it does not know the job any more.
    """
    printing, replied = asyncio.create_task(_print(client, job)), time.monotonic()
    # A head node without CPU time may need many seconds for a reply, so one question waits as long as the limit.
    async with aiohttp.ClientSession(headers=token_headers(), timeout=aiohttp.ClientTimeout(LOST_S)) as session:
        while not (await asyncio.wait([printing], timeout=CHECK_S))[0]:
            try:
                async with session.get(f"{client.get_address()}/api/jobs/{job}") as reply:
                    replied = time.monotonic()
            except (aiohttp.ClientError, OSError):  # also a timeout
                if time.monotonic() - replied > LOST_S:
                    raise OSError(f"it has not replied for {LOST_S:g} s") from None
                continue
            if reply.status == HTTPStatus.NOT_FOUND:
                raise RuntimeError("it does not know the job: the head node was started again")
    await printing


async def _print(client: JobSubmissionClient, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def leave(client: JobSubmissionClient, reason: str, job: str, code: int) -> int:
    """Say why this program ends before the job, and how to follow and stop the job. Returns the exit code."""
    ray = "RAY_AUTH_MODE=token ray job" if os.environ.get("RAY_AUTH_MODE") == "token" else "ray job"
    address = client.get_address()
    print(
        f"\nsubmit: {reason}\n"
        f"  follow it:  {ray} logs --address {address} --follow {job}   (or repeat this command)\n"
        f"  stop it:    {ray} stop --address {address} {job}",
        file=sys.stderr,
        flush=True,
    )
    return code


if __name__ == "__main__":
    logging.disable(logging.INFO)  # Ray's client would print a line for each file that it leaves out
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f"submit: {error}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        print("\nsubmit: interrupted before the job was submitted", file=sys.stderr, flush=True)
        code = 130
    raise SystemExit(code)
