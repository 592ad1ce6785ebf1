"""A policy on running servers, of vLLM or SGLang: OpenAI's completions, with token ids in place of text.

In: token tuples. Out: `Completion`. Each server is checked before the first call: it has to serve the policy with our
tokenizer, and to take and return token ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import random
import socket
from itertools import cycle
from typing import Any

import httpx

from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.facts import end_token_set
from vgs_ray.engines.interface import (
    SEARCH_CONTEXT,
    Completion,
    EngineDied,
    FinishReason,
    SamplingWithGrammar,
    SamplingWithLogprobs,
    Usage,
    check_tokens,
    refused_grammars,
    room_for,
)
from vgs_ray.models.folder import on_this_machine
from vgs_ray.prompts import load_tokenizer

KEY = "VGS_RAY_POLICY_KEY"
"""Environment variable with the API key of the servers."""
PROBE = "Is 12 + 7·x = 3½?\n\n\\boxed{é} </think> 数字 0123"
"""A text that tokenizers split in different ways."""
AFFINITY_TOKENS = 64
"""Calls outside of a search go to the same server if their prefixes begin with the same tokens."""
CONNECT_S, CHECK_S = 10.0, 60.0
PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
"""Between two rounds over all servers; doubled after each."""
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""A machine that is lost without a word is noticed within a minute, although a reply can take much longer."""
SGLANG_GRAMMARS = {"json": "json_schema", "regex": "regex"}
"""SGLang's fields for a grammar. It ignores vLLM's `structured_outputs`."""
REPEATED = (408, 409, 429)
"""Statuses after which a call is repeated, beside all from 500 on."""

log = logging.getLogger(__name__)


class _Unanswered(Exception):
    """A server did not answer a call for now; another one may."""


class ServedPolicy:
    """A `Policy` on one or several servers of the same model.

    The calls of one search go to the same server, which caches its prefixes, as long as that answers. A call is repeated on the
    next server if its server refuses for the moment, fails, or closes the connection. At most `engine.max_num_seqs` calls run
    at the same time.

    Args:
        model: folder, URL or hub id of the policy, for its tokenizer and its configuration.
        engine: `urls` has the servers. A call may take `step_timeout_s`, repetitions included.
        logprobs: as in `VllmPolicy`.

    Raises:
        ValueError: a server can't be reached, serves another model, or can't take or return token ids.
    """

    def __init__(self, model: str, engine: Engine, logprobs: bool = True) -> None:
        self.usage, self.max_model_len, self._limit_s = Usage(), engine.max_model_len, engine.step_timeout_s
        self._vocabulary, self._end_tokens = _facts_of(model)
        self._models = {url: check_server(url, model, engine.max_model_len) for url in map(_base, engine.urls)}
        self._logprobs = 0 if logprobs else None
        self._room = asyncio.Semaphore(engine.max_num_seqs)
        self._client: httpx.AsyncClient | None = None

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`. Cancelling the call closes its connection, and the server ends the sequence.

        Raises:
            ValueError: `prefix` is empty or too long, or the server refuses the call for good.
            UnknownToken: a token id is outside the vocabulary.
            EngineDied: no server answered within `step_timeout_s`.
        """
        room = room_for(prefix, sampling.max_tokens, self.max_model_len)
        check_tokens(prefix, self._vocabulary)
        each = isinstance(sampling, SamplingWithLogprobs)
        body = {
            "prompt": list(prefix),
            "max_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed if sampling.temperature > 0 else None,
            "logprobs": 0 if each else self._logprobs,
            "top_k": sampling.top_k or -1,  # all tokens; SGLang refuses 0
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "stop_token_ids": [*self._end_tokens, *sampling.stop_token_ids],
            "return_token_ids": True,
        }
        if isinstance(sampling, SamplingWithGrammar):
            body["structured_outputs"] = {sampling.grammar.kind: sampling.grammar.text}
            body[SGLANG_GRAMMARS[sampling.grammar.kind]] = sampling.grammar.text  # vLLM ignores it
        async with self._room:
            with refused_grammars(sampling):
                reply = await self._call(prefix, body)
            return self._read(reply, len(prefix), each)

    def close(self) -> None:
        """Nothing to free: connections end with the process."""

    async def _call(self, prefix: Tokens, body: dict[str, Any]) -> dict[str, Any]:
        """The reply of the first server that answers, in as many rounds over all servers as the time allows."""
        urls, pause, last = _in_order(list(self._models), prefix), PAUSE_S, "no answer"
        try:
            async with asyncio.timeout(self._limit_s):
                for url in cycle(urls):
                    try:
                        return await self._ask(url, body)
                    except _Unanswered as error:
                        last = str(error)
                    if url == urls[-1]:
                        log.warning("no server of the policy answers a call; it is repeated (%s)", last)
                        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                        pause = min(2 * pause, LONGEST_PAUSE_S)
        except TimeoutError:
            pass
        raise EngineDied(f"no server of the policy answered within {self._limit_s:g} s (step_timeout_s); last: {last}")

    async def _ask(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply of one server.

        Raises:
            _Unanswered: the call may be repeated.
            ValueError: the server refuses it for good.
        """
        try:
            reply = await self._http().post(f"{url}/completions", json={"model": self._models[url], **body})
        except httpx.TransportError as error:  # no answer, or one that is cut off
            raise _Unanswered(f"{url}: {type(error).__name__}") from error
        if reply.is_success:
            return dict(reply.json())
        said = f"{url} answered {_said(reply)}"
        raise _Unanswered(said) if reply.status_code >= 500 or reply.status_code in REPEATED else ValueError(said)

    def _http(self) -> httpx.AsyncClient:
        """The client, which belongs to the event loop of the first call."""
        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            self._client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(limits=limits, socket_options=KEEPALIVE),
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                headers=_headers(),
            )
        return self._client

    def _read(self, reply: dict[str, Any], length: int, each: bool) -> Completion:
        choice, details = reply["choices"][0], reply["usage"].get("prompt_tokens_details") or {}
        tokens, cached = tuple(choice["token_ids"]), details.get("cached_tokens") or 0
        self.usage.generated += len(tokens)
        self.usage.cached += cached
        self.usage.prefilled += length - cached
        logprobs = tuple(choice["logprobs"]["token_logprobs"]) if each or self._logprobs is not None else None
        logprob = math.nan if logprobs is None else math.fsum(logprobs) / max(len(tokens), 1)
        finished = bool(tokens) and tokens[-1] in self._end_tokens
        reason: FinishReason = "stop" if choice["finish_reason"] == "stop" else "length"
        return Completion(tokens, finished, reason, logprob, length - cached, logprobs=logprobs if each else None)


def check_server(url: str, model: str, max_model_len: int) -> str:
    """Check a server before the first call.

    Args:
        url: its base address, with `/v1`.
        model: folder, URL or hub id of the policy.
        max_model_len: the longest sequence of a call.

    Returns:
        The name of the model there.

    Raises:
        ValueError: the reason why it can't be used, with the remedy.
    """
    with httpx.Client(headers=_headers(), timeout=httpx.Timeout(CHECK_S, connect=CONNECT_S)) as client:
        served = {each["id"]: each for each in _json(client, "GET", f"{url}/models")["data"]}
        name = model if model in served else next(iter(served), "")
        if name != model and len(served) != 1:
            raise ValueError(
                f"{url} serves {', '.join(served) or 'no model'}, and the policy is {model}: start the server with "
                f"--served-model-name {model}"
            )
        room = served[name].get("max_model_len")
        if room and room < max_model_len:
            raise ValueError(
                f"{url} has a max_model_len of {room}, and the engine's is {max_model_len}: start the server with "
                f"--max-model-len {max_model_len}, or lower max_model_len of the recipe's engine"
            )
        tokenizer = load_tokenizer(model)
        ours = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        fields = {"max_tokens": 1, "temperature": 0.0, "return_token_ids": True, "add_special_tokens": False}
        # SGLang adds special tokens to a text in any case.
        for prompt, right in ((PROBE, [ours, tokenizer(PROBE)["input_ids"]]), (ours, [ours])):
            reply = _json(client, "POST", f"{url}/completions", json={"model": name, "prompt": prompt, **fields})
            _check_ids(url, model, reply["choices"][0], right)
    return name


def _json(client: httpx.Client, method: str, url: str, **fields: Any) -> Any:
    try:
        reply = client.request(method, url, **fields)
    except httpx.TransportError as error:
        raise ValueError(
            f"{url} can't be reached ({type(error).__name__}): start the server, or pass other urls"
        ) from None
    if not reply.is_success:
        raise ValueError(
            f"{url} answered {_said(reply)}: check the address, {KEY}, and that /v1/completions there takes token ids, as vLLM's"
        )
    return reply.json()


def _check_ids(url: str, model: str, choice: dict[str, Any], right: list[list[int]]) -> None:
    """Check that a server returned token ids, and read the probe in one of the right ways."""
    read = choice.get("prompt_token_ids")
    if not read or not choice.get("token_ids"):
        raise ValueError(
            f"{url} returns no token ids, which searches and labels need: use a server whose /v1/completions has "
            "return_token_ids, such as vLLM 0.10.2 or SGLang 0.5.23, or newer"
        )
    if read not in right:
        raise ValueError(
            f"{url} reads a text as other tokens than {model} ({read[:8]} ... and {right[0][:8]} ...): serve the recipe's policy "
            "there, or name the served model as the recipe's policy"
        )


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _said(reply: httpx.Response) -> str:
    """The status and the beginning of the message."""
    return f"{reply.status_code} {reply.text[:200]}".strip()


def _base(url: str) -> str:
    """The address with `/v1`, which users may leave out."""
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def _in_order(urls: list[str], prefix: Tokens) -> list[str]:
    """The servers in the order in which a call tries them (rendezvous hashing): equal for all calls of a search."""
    search = SEARCH_CONTEXT.get()
    name = search.name if search and search.name else repr(prefix[:AFFINITY_TOKENS])
    return sorted(urls, key=lambda url: hashlib.blake2b(f"{url} {name}".encode()).digest())


def _facts_of(model: str) -> tuple[int, frozenset[int]]:
    """The number of token ids of a model, and its end-of-sequence tokens.

    Raises:
        ValueError: it has no end-of-sequence token.
    """
    from transformers import AutoConfig, GenerationConfig

    path = on_this_machine(model, weights=False)
    config = AutoConfig.from_pretrained(path).get_text_config()
    try:
        ends = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # most folders have one, but it is optional
        ends = None
    return int(config.vocab_size), end_token_set(model, config.eos_token_id if ends is None else ends)
