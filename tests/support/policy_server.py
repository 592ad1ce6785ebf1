"""A server of the OpenAI API over a scripted policy. Like `vllm serve`, it takes and returns token ids. It fails on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from vgs_ray.config import Sampling
from vgs_ray.engines.interface import Policy
from vgs_ray.prompts import load_tokenizer


@dataclass
class PolicyServer:
    """What it serves, and how it behaves.

    Attributes:
        policy: makes the completions.
        model: folder of the tokenizer.
        faults: what the next calls meet: `429`, `503`, `400`, `cut` (the reply ends too early) or `hang`.
        without_ids: it ignores `return_token_ids`.
        shift: added to the ids that it reads from text, as by another tokenizer.
        calls, cancelled: number of completions, and of those whose client went away.
    """

    policy: Policy
    model: str
    faults: list[str] = field(default_factory=list)
    max_model_len: int = 512
    without_ids: bool = False
    shift: int = 0
    key: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    sampling: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models(request: Request) -> Response:
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": "no"}, 401)
            return JSONResponse({"data": [{"id": "served", "max_model_len": self.max_model_len}]})

        @app.post("/v1/completions")
        async def completions(request: Request) -> Response:
            self.calls["begun"] += 1
            fault = self.faults.pop(0) if self.faults else ""
            if fault.isdecimal():
                return JSONResponse({"error": {"message": f"fault {fault}"}}, int(fault))
            if fault == "cut":
                return StreamingResponse(_half(), headers={"content-length": "1000"})
            if fault == "hang":
                await _gone(request)
                self.calls["cancelled"] += 1
                return Response()
            reply = await self._complete(await request.json())
            self.calls["done"] += 1
            return JSONResponse(reply)

        return app

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = [
                id + self.shift for id in load_tokenizer(self.model)(prompt, add_special_tokens=False)["input_ids"]
            ]
        self.sampling.append({name: value for name, value in body.items() if name != "prompt"})
        sampling = Sampling(temperature=body["temperature"], max_tokens=body["max_tokens"])
        made = await self.policy.extend(tuple(prompt), sampling, body.get("seed") or 0)
        ids = {} if self.without_ids else {"token_ids": made.tokens, "prompt_token_ids": prompt}
        choice = {"finish_reason": made.finish_reason, "logprobs": {"token_logprobs": [-0.5] * len(made.tokens)}, **ids}
        return {"choices": [choice], "usage": {"prompt_tokens_details": {"cached_tokens": len(prompt) // 2}}}


async def _half() -> AsyncIterator[bytes]:
    yield b'{"choices": ['


async def _gone(request: Request) -> None:
    """Return when the client goes away."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.05)
