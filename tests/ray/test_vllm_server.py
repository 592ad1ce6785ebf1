"""A real vLLM server in place of engines here: the roll-outs of a stage, and answers of the endpoint."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from whole_run import recipe_in, rows

from pipelines.serving.ingress import free_ports
from vgs_ray.config import Sampling
from vgs_ray.engines import build_policy
from vgs_ray.sandbox import policy_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three minutes: a server, an engine, and four stages
MODEL = str(policy_path("ref"))
SMALL = ("--clean.limit", "60", "--clean.validation", "5", "--clean.test", "3")
START_S, STAGE_S = 240.0, 300.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `vllm serve` for the sandbox's policy."""
    [port] = free_ports(1)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", "512", "--dtype", "float32", "--enforce-eager", "--block-size", "32", "--enable-prompt-tokens-details",
        "--no-enable-chunked-prefill",  # with it, vLLM 0.29 fails on a CPU if a request has a seed
    ]  # fmt: skip
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        try:
            deadline = time.monotonic() + START_S
            while not _answers(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(1)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", timeout=5).is_success
    except httpx.TransportError:
        return False


def run(stage: str, root: Path, *options: str) -> None:
    command = [sys.executable, "-m", f"pipelines.{stage}", "sandbox", "--root", str(root), *SMALL, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STAGE_S)
    assert not done.returncode, done.stdout + done.stderr


async def test_completions_are_those_of_our_engine(server: str) -> None:
    engine = recipe_in("unused").roll_out.engine
    there, here = (
        build_policy(MODEL, recipe_in("unused", "--roll-out.engine.urls", server).roll_out.engine),
        build_policy(MODEL, engine),
    )
    prefix = tuple(range(5, 75))
    try:
        for sampling in (
            Sampling(temperature=0.0, max_tokens=100),
            Sampling(temperature=1.0, top_p=0.9, top_k=20, repetition_penalty=1.1, max_tokens=16),
            Sampling(temperature=1.0, max_tokens=200, stop_token_ids=(11, 12, 13)),
        ):
            for seed in range(4):
                found, expected = await there.extend(prefix, sampling, seed), await here.extend(prefix, sampling, seed)
                assert found.tokens == expected.tokens
                assert (found.finished, found.finish_reason) == (expected.finished, expected.finish_reason)
                assert found.mean_logprob == pytest.approx(expected.mean_logprob, abs=1e-4)
        assert found.prefilled == 70 - 64
    finally:
        here.close()


def test_roll_outs_are_those_of_our_engines(server: str, tmp_path: Path) -> None:
    tables = []
    for name, options in (("here", ()), ("there", ("--roll-out.engine.urls", server))):
        for stage in ("clean", "roll_in", "roll_out"):
            run(stage, tmp_path / name, *options)
        tables.append(rows(recipe_in(tmp_path / name), "roll_out"))
    assert tables[0].num_rows > 50
    assert tables[0].equals(tables[1])
