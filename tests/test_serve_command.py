"""`python -m pipelines.serve` as people run it: it serves until Ctrl-C, lets searches finish, and logs what it was told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from load import problems, sandbox_endpoint

[PROBLEM] = problems(1)
LIMIT_S = 120.0


@pytest.mark.timeout(400)
def test_ctrl_c_lets_a_search_finish(tmp_path: Path) -> None:
    settings = sandbox_endpoint(tmp_path).serve
    command = [
        sys.executable, "-m", "pipelines.serve", "sandbox", "--serve.port", str(settings.port),
        "--serve.value-model", settings.value_model, "--serve.log-requests", "--serve.cors-origins", "https://chat.example",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            said = [next(line for line in server.stdout if line.startswith("engine and worker logs: "))]
            said.append(next(line for line in server.stdout if line.startswith("serving ")))
            frames = list(search_under_ctrl_c(f"http://127.0.0.1:{settings.port}/v1", server))
            rest = server.stdout.read()
            assert server.wait(LIMIT_S) == 0
        finally:
            server.kill()
    assert f"127.0.0.1:{settings.port}/v1; Ctrl-C ends it" in said[1]
    assert frames[-1] == "data: [DONE]"
    assert '"finish_reason": "stop"' in frames[-2]
    assert rest.index("draining") < rest.index("the endpoint has ended")
    logs = Path(said[0].partition(": ")[2].strip())
    asked = json.dumps({"problem": PROBLEM})[1:-1]
    assert sum(asked in file.read_text(errors="replace") for file in logs.glob("worker-*.err")) == 1


def search_under_ctrl_c(url: str, server: subprocess.Popen[str]):
    """Lines of a long search, whose server is told to end at its first block."""
    body = {
        "model": "vgs", "messages": [{"role": "user", "content": PROBLEM}], "stream": True,
        "search": {"budget": 128, "block": 4, "events": True, "seed": 1},
    }  # fmt: skip
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False) as reply:
        told = False
        for line in reply.iter_lines():
            if not told and line == "event: vgs_ray.node":
                told = True
                server.send_signal(signal.SIGINT)
            if line:
                yield line
        assert told
