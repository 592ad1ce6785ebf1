"""An engine that is stuck in a step ends its process; one that waits for calls does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

CODE = textwrap.dedent("""
    import asyncio, sys, time
    from types import SimpleNamespace
    from pipelines.actors.engine_start import exit_if_stuck
    from vgs_ray.engines.loop import EngineLoop

    class Stepper:
        def __init__(self):
            self.held = []
        def add_request(self, name, prompt, params):
            self.held.append((name, prompt["prompt_token_ids"]))
        def step(self):
            name, [seconds] = self.held.pop()
            time.sleep(seconds)
            return [SimpleNamespace(request_id=name, finished=True)]

    loop = EngineLoop(Stepper, lambda engine: None, lambda output: "done", step_timeout_s=0.8)
    exit_if_stuck(SimpleNamespace(loop=loop), None)
    print(asyncio.run(loop.submit((0,), None)), flush=True)
    time.sleep(1.5)
    print(asyncio.run(loop.submit((int(sys.argv[1]),), None)), flush=True)
""")


@pytest.mark.parametrize(("seconds", "code", "lines"), [(0, 0, 2), (60, 1, 1)])
def test_a_stuck_engine_ends_its_process(seconds: int, code: int, lines: int) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(seconds)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("done") == lines
    assert ("step_timeout_s" in done.stdout) == (code == 1)
