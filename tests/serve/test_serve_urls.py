"""The commands serve and ask with a root and a policy on an object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from load import problems
from upath import UPath

from pipelines.serving.ingress import free_ports
from vgs_ray.data.files import upload_folder
from vgs_ray.sandbox import policy_path
from vgs_ray.value.model import ValueModel


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_endpoint_loads_the_models_of_a_run_on_s3(s3_root: UPath, tmp_path: Path) -> None:
    ValueModel.from_backbone(policy_path("ref"), seed=2).save_pretrained(tmp_path / "value")
    upload_folder(tmp_path / "value", s3_root / "runs" / "sandbox" / "train" / "value_model")
    upload_folder(policy_path("ref"), s3_root / "policy")
    [port] = free_ports(1)
    command = [
        sys.executable, "-m", "pipelines.serve", "sandbox", "--root", f"{s3_root}/runs", "--policy.model",
        f"{s3_root}/policy", "--serve.port", str(port),
    ]  # fmt: skip
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout
        try:
            assert any(line.startswith("serving ") for line in server.stdout)
            asked = [sys.executable, "-m", "pipelines.ask", problems(1)[0], "--url", f"http://127.0.0.1:{port}/v1"]
            reply = subprocess.run([*asked, "--model", "vgs-sandbox"], capture_output=True, text=True, timeout=200)
            server.send_signal(signal.SIGINT)
            assert server.wait(120) == 0
        finally:
            server.kill()
    assert reply.returncode == 0, reply.stderr
    assert "of the vote" in reply.stdout
    copies = {path.name.rpartition("-")[0] for path in (tmp_path / "cache" / "vgs_ray" / "models").iterdir()}
    assert {"policy", "value_model"} <= copies
