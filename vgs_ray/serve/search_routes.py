"""The routes that use the engines: chat completions, completions, responses and scores.

Problems and answers are logged only if `Serve.log_requests` is set.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from vgs_ray import config
from vgs_ray.data.tokens import Tokens
from vgs_ray.search.tree import Listener
from vgs_ray.serve.admission import Place, Take
from vgs_ray.serve.chat_format import ChatFormat
from vgs_ray.serve.error_handlers import api_error
from vgs_ray.serve.events import start_event
from vgs_ray.serve.instrumented import CLIENT_CLOSED, counted_prompt, counted_search, wait_for_admission
from vgs_ray.serve.metrics import Metrics
from vgs_ray.serve.openapi import SCORE_RESPONSES, search_responses
from vgs_ray.serve.probability import check_min_confidence
from vgs_ray.serve.replies import ChatReply, TextReply, search_reply
from vgs_ray.serve.requests import ChatRequest, CompletionRequest, ScoreRequest
from vgs_ray.serve.responses_format import ResponsesFormat
from vgs_ray.serve.responses_reply import ResponseReply
from vgs_ray.serve.responses_request import ResponsesRequest
from vgs_ray.serve.score_reply import score_reply
from vgs_ray.serve.search_options import check_model
from vgs_ray.serve.search_result import SearchResult
from vgs_ray.serve.search_spec import Conversation, SearchSpec, resolve_search
from vgs_ray.serve.searcher import Searcher, seed_of
from vgs_ray.serve.stream import EventStream, Stream

T = TypeVar("T")
Layout = ChatFormat | ResponsesFormat
GRAMMARS_AT_ONCE = 2
"""Grammars that the engine compiles for one search replica at the same time."""
log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client has disconnected."""


@dataclass(frozen=True)
class Routes:
    """Processes the requests of all routes that use the engines."""

    searcher: Searcher
    settings: config.Serve
    metrics: Metrics
    take: Take
    compiling: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, GRAMMARS_AT_ONCE))

    async def search(self, body: ChatRequest | CompletionRequest, request: Request, layout: Layout) -> Response:
        """Search, and reply at once or as a stream."""
        try:
            spec = resolve_search(body, self.settings)
            check_min_confidence(self.searcher.probabilities, spec)
            await self._check_grammar(spec)
            if body.stream:
                return await self._stream(spec, body, layout)
            with await self.take(spec.budget) as place:
                result = await _while_connected(request, self._solve(spec, place))
            return JSONResponse(layout.reply(result))
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED)
        except Exception as error:
            raise api_error(error, body.prompt_field, body.format_field) from error

    async def _check_grammar(self, spec: SearchSpec) -> None:
        """Let the engine compile a grammar. This is before admission, so that a stream with a bad grammar gets a plain 400."""
        if spec.grammar:
            async with self.compiling:
                await self.searcher.check_grammar(spec.grammar)

    async def respond(self, body: ResponsesRequest, request: Request) -> Response:
        """As `search`, in the layout of OpenAI's Responses API."""
        layout = ResponsesFormat(body, self.settings.sampling, self.searcher.tokenize)
        return await self.search(body.as_chat(), request, layout)

    async def _stream(self, spec: SearchSpec, body: ChatRequest | CompletionRequest, layout: Layout) -> Response:
        events = body.search is not None and body.search.events
        prompt = counted_prompt(self.searcher, self.metrics, spec)  # an invalid prompt gets a plain 400
        seed = seed_of(spec)
        place = await self.take(spec.budget)  # last, because nothing releases it if a later step fails
        stream = Stream(
            layout,
            self.searcher.decode if events else None,
            start_event(spec, seed, prompt, place.position) if events else None,
        )
        spec = replace(spec, seed=seed)
        return EventStream(stream.frames(lambda listen: self._solve(spec, place, listen)), place)

    async def _solve(self, spec: SearchSpec, place: Place, listen: Listener | None = None) -> SearchResult:
        result = await counted_search(self.searcher, self.metrics, spec, place, listen)
        if self.settings.log_requests:
            problem = spec.problem
            logged = [turn._asdict() for turn in problem.turns] if isinstance(problem, Conversation) else problem
            log.info("%s", json.dumps({"problem": logged, **search_reply(result)}))
        return result

    async def score(self, body: ScoreRequest, request: Request) -> Response:
        """Score texts or token ids."""
        check_model(body.model, self.settings)
        try:
            sequences = [self.searcher.tokenize(item) if isinstance(item, str) else tuple(item) for item in body.input]
            self.searcher.check_scored(sequences, body.from_token)
            with await self.take(len(sequences)) as place:
                values = await _while_connected(request, self._score(sequences, body, place))
            texts = await asyncio.to_thread(self._texts, sequences, body) if body.return_text else None
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED)
        except Exception as error:
            raise api_error(error, "input") from error
        return JSONResponse(score_reply(values, body.model, sum(map(len, sequences)), texts))

    async def _score(self, sequences: Sequence[Tokens], body: ScoreRequest, place: Place) -> list[list[float]]:
        await wait_for_admission(place, self.metrics)
        return await self.searcher.score(sequences, body.every_token, body.from_token)

    def _texts(self, sequences: Sequence[Tokens], body: ScoreRequest) -> list[list[str]]:
        """Texts of the tokens that have a value: those from `from_token` on, or the last one."""
        first = body.from_token if body.every_token else -1
        return [self.searcher.pieces(tokens[first:]) for tokens in sequences]


def add_search_routes(app: FastAPI, routes: Routes) -> None:
    @app.post("/v1/chat/completions", responses=search_responses(ChatReply))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Search for an answer to the last message."""
        return await routes.search(body, request, ChatFormat(body))

    @app.post("/v1/completions", responses=search_responses(TextReply))
    async def completion(body: CompletionRequest, request: Request) -> Response:
        """Search for a continuation of the prompt."""
        return await routes.search(body, request, ChatFormat(body))

    @app.post("/v1/responses", responses=search_responses(ResponseReply))
    async def response(body: ResponsesRequest, request: Request) -> Response:
        """Search for an answer to the last message, in the layout of OpenAI's Responses API."""
        return await routes.respond(body, request)


def add_score_route(app: FastAPI, routes: Routes) -> None:
    @app.post("/v1/score", responses=SCORE_RESPONSES)
    async def score(body: ScoreRequest, request: Request) -> Response:
        """Values of texts or token ids: P(the finished answer will be correct)."""
        return await routes.score(body, request)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client disconnects or the server cancels the request.

    Raises:
        ClientGone: the client has disconnected.
    """
    task, disconnected = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        disconnected.cancel()


async def _disconnect(request: Request) -> None:
    """Return when the client disconnects. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
