"""An endpoint over scripted engines, on a port or in this process. Some problems make the policy hang, die or fail."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import openai
import uvicorn
from fastapi import FastAPI

from vgs_ray.answers.judge import Judge
from vgs_ray.config import Beam, Sampling, Serve
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, EngineDied, SamplingWithGrammar, UnusableGrammar
from vgs_ray.engines.scripted import END, ScriptedPolicy, ScriptedValue, World
from vgs_ray.prompts import Turn
from vgs_ray.serve.app import create_app
from vgs_ray.serve.metrics import Mirror
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
REFUSED = "refused"
"""A regular expression that the policy refuses."""
MOOD = 8
"""Second token of the prompts HANG, DIE and BREAK; the first token tells them apart."""
VOCABULARY = 10
CHARACTERS = 1000
"""The id of the first token that stands for a character. Only texts with a grammar have such tokens."""


def decode(tokens: Tokens) -> str:
    """A finished chain has the sum of its slips as its answer; 0 is correct."""
    if written := "".join(chr(token - CHARACTERS) for token in tokens if token >= CHARACTERS):
        return written
    body = [token for token in tokens if token != END]
    thought = f"<think>{' '.join(map(str, body))}"
    return f"{thought}</think>\nSo \\boxed{{{sum(body) % 7}}}" if END in tokens else thought


def encode(asked: str | Sequence[Turn]) -> Tokens:
    """A prompt of one token, or of one that the engines treat in a special way, by the last message."""
    problem = asked if isinstance(asked, str) else asked[-1].text
    kinds = {HANG: 1, DIE: 2, BREAK: 3}
    return (0,) * 50 if problem == LONG else (kinds[problem], MOOD) if problem in kinds else (0,)


def tokenize(text: str) -> Tokens:
    """Raw text: a problem number, then correct steps."""
    return (4, *(0 for _ in text[1:]))


@dataclass
class Moody(ScriptedPolicy):
    """A policy that can hang, die or fail. It counts the calls that hang and those that were cancelled.

    Attributes:
        formatted: what it writes if a call has a grammar; these calls are kept in `grammars`.
    """

    formatted: str = '{"answer": 7}'
    grammars: list[SamplingWithGrammar] = field(default_factory=list)
    started: int = 0
    cancelled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        if isinstance(sampling, SamplingWithGrammar):
            return self._formatted(sampling)
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

    def _formatted(self, sampling: SamplingWithGrammar) -> Completion:
        self.grammars.append(sampling)
        if sampling.grammar.text == REFUSED:
            raise UnusableGrammar("no backend takes this")
        tokens = (*(CHARACTERS + ord(each) for each in self.formatted), END)[: sampling.max_tokens]
        return Completion(tokens, END in tokens, "stop" if END in tokens else "length", 0.0, 1)


class HangsAfterTwoBlocks(Moody):
    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        return await super().extend(prefix if len(prefix) < 10 else encode(HANG), sampling, seed)


def scripted_searcher(policy: Moody | None = None, value: ScriptedValue | None = None, **options: Any) -> Searcher:
    engines = policy or Moody(WORLD), value or ScriptedValue(WORLD)
    defaults: Any = {"encode": encode, "tokenize": tokenize, "decode": decode, "judge": Judge(workers=1), "context": 50}
    return Searcher(*engines, **defaults | options)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client of an application in this process. Failures get a reply; they are not raised."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def scripted_client(
    searcher: Searcher | None = None, keys: Sequence[bytes] = (), mirror: Mirror | None = None, **settings: Any
) -> httpx.AsyncClient:
    """A client of an endpoint with other settings in this process."""
    return client_of(create_app(searcher or scripted_searcher(), replace(SETTINGS, **settings), mirror, keys))


def chat(problem: str = "3", **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": "scripted", "messages": [{"role": "user", "content": problem}], **fields}


@dataclass
class Served:
    """A running server."""

    url: str
    policy: Moody
    value: ScriptedValue

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=10)

    def post(self, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=chat(**fields), timeout=10)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Run an application on a free port; yields its address."""
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
    """A running server with these settings."""
    policy, value = Moody(WORLD, latency=3), ScriptedValue(WORLD, latency=3)
    app = create_app(scripted_searcher(policy, value, vocabulary=VOCABULARY), settings)
    with running(app) as url:
        yield Served(url, policy, value)


def ask(served: Served, problem: str = "3", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem}]
    return served.client.chat.completions.create(model="scripted", messages=messages, **more)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
