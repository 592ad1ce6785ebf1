"""A real server over scripted engines, for tests of what speaks HTTP; some problems make the policy hang, die or break."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from vgs_ray.answers.judge import Judge
from vgs_ray.config import Beam, Sampling, Serve
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, EngineDied
from vgs_ray.engines.scripted import END, ScriptedPolicy, ScriptedValue, World
from vgs_ray.serve.app import create_app
from vgs_ray.serve.searcher import Searcher

WORLD = World(steps=24, slip=0.08)
SETTINGS = Serve(
    model_name="scripted",
    beam=Beam(keep=2, branch=2, block=6, groups=2),
    sampling=Sampling(max_tokens=40),
    max_budget=32,
    max_problem_chars=100,
    max_waiting=0,
)
HANG, DIE, BREAK, LONG = "hang", "die", "break", "long"
MOOD = 8
"""Second token of prompts that move the policy below; first is which way."""
VOCABULARY = 10


def decode(tokens: Tokens) -> str:
    """A finished chain answers how far its slips went: 0 is right."""
    body = [token for token in tokens if token != END]
    thought = f"<think>{' '.join(map(str, body))}"
    return f"{thought}</think>\nSo \\boxed{{{sum(body) % 7}}}" if END in tokens else thought


def encode(problem: str) -> Tokens:
    """Problems are words that the policy below knows; all others are ordinary."""
    kinds = {HANG: 1, DIE: 2, BREAK: 3}
    return (0,) * 50 if problem == LONG else (kinds[problem], MOOD) if problem in kinds else (0,)


def tokenize(text: str) -> Tokens:
    """Raw text: a problem number, then right steps."""
    return (4, *(0 for _ in text[1:]))


@dataclass
class Moody(ScriptedPolicy):
    """A policy that can hang, die or break; it counts the calls that were cancelled."""

    started: int = 0
    cancelled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        if prefix[:2] == (2, MOOD):
            raise EngineDied("the engine is gone (secret)")
        if prefix[:2] == (3, MOOD):
            raise ZeroDivisionError("secret")
        if prefix[:2] == (1, MOOD):
            self.started += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return await super().extend(prefix, sampling, seed)


@dataclass
class Served:
    """A running server."""

    url: str
    policy: Moody
    value: ScriptedValue

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=10)

    def post(self, **body: Any) -> httpx.Response:
        whole = {"model": "scripted", "messages": [{"role": "user", "content": "3"}], **body}
        return httpx.post(f"{self.url}/v1/chat/completions", json=whole, timeout=10)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of a server of its own for this application."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def serving(settings: Serve = SETTINGS) -> Iterator[Served]:
    """A server of these settings."""
    policy, value = Moody(WORLD, latency=3), ScriptedValue(WORLD, latency=3)
    judge = Judge(workers=1)
    search = Searcher(policy, value, encode, tokenize, decode, judge, context=50, vocabulary=VOCABULARY)
    app = create_app(search, settings)
    with running(app) as url:
        yield Served(url, policy, value)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def ask(served: Served, problem: str = "3", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem}]
    return served.client.chat.completions.create(model="scripted", messages=messages, **more)


def wait_until(holds: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
