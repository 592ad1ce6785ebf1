"""An endpoint whose engines have replicas of their own: its recipe, requests to it, and the processes of its replicas."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
from load import problems, sandbox_endpoint
from ray_processes import command_line, workers

from vgs_ray.config import Recipe

PROBLEMS = problems(8)
LIMIT_S = 120.0


def apart_recipe(folder: Path) -> Recipe:
    """Two policy replicas, one value replica and two search replicas, on every interface. Blocks are ranked by likelihood too."""
    replicas = ("--serve.policy-resources.replicas", "2", "--serve.search-replicas", "2")
    return sandbox_endpoint(
        folder, "--serve.layout", "apart", *replicas, "--serve.host", "0.0.0.0", "--serve.beam.likelihood", "4"
    )


def ask(url: str, problem: str, seed: int) -> dict[str, Any]:
    """The reply to a search of 8 beams. Errors raise."""
    messages = [{"role": "user", "content": problem}]
    body = {"model": "vgs", "messages": messages, "search": {"seed": seed, "budget": 8}}
    reply = httpx.post(f"{url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ask_all(url: str) -> list[dict[str, Any]]:
    """Replies to all problems, requested at the same time."""
    with ThreadPoolExecutor(len(PROBLEMS)) as pool:
        return list(pool.map(lambda index: ask(url, PROBLEMS[index], index), range(len(PROBLEMS))))


def replica_processes(deployment: str, application: str = "vgs") -> list[psutil.Process]:
    """Processes of a deployment's replicas in this process's Ray session, found by their titles."""
    start = f"ray::ServeReplica:{application}:{deployment}"
    return [process for process in workers(os.getpid(), start) if command_line(process).startswith(start)]
