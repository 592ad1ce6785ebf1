"""The endpoint as an ASGI application: value-guided search that speaks like any OpenAI-compatible server. No Ray here.

In: a `Searcher` and `config.Serve`. Out: a FastAPI application; any server can run it, Ray Serve or uvicorn. Problems
and answers are logged only where `Serve.log_requests` says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from vgs_ray import config
from vgs_ray.data.tokens import Tokens
from vgs_ray.search.tree import Listener
from vgs_ray.serve.access import ApiKeys, BodyLimit, OwnHost, allow_origins, is_loopback, key_digests
from vgs_ray.serve.admission import Admission, Place
from vgs_ray.serve.error_handlers import api_error, handle_errors
from vgs_ray.serve.instrumented import CLIENT_GONE, CountRefusals, counted_prompt, counted_search, instrumented, waited
from vgs_ray.serve.metrics import Metrics, Mirror
from vgs_ray.serve.openapi import (
    EVERYWHERE,
    HEALTH,
    PLAIN,
    SCORED,
    ChatReply,
    ModelReply,
    ModelsReply,
    Ready,
    TextReply,
    describe,
    errors,
    searched,
)
from vgs_ray.serve.replies import chat_completion, scores, search_details, text_completion
from vgs_ray.serve.requests import MAX_BODY_BYTES, ChatRequest, CompletionRequest, ScoreRequest
from vgs_ray.serve.search_result import SearchResult
from vgs_ray.serve.search_spec import SearchSpec, check_model, presets, resolve_search
from vgs_ray.serve.searcher import Searcher, seed_of
from vgs_ray.serve.stream import EventStream, Stream, start_of
from vgs_ray.serve.web_page import DOCS_FILES, add_page

T = TypeVar("T")
Reply = Callable[[SearchResult, str], dict[str, Any]]
log = logging.getLogger(__name__)


class ClientGone(Exception):
    """Nobody waits for the reply any more."""


def create_app(
    search: Searcher, settings: config.Serve, mirror: Mirror | None = None, keys: Sequence[bytes] = ()
) -> FastAPI:
    """The application with all its routes. Keys of the environment (see `guard.KEYS`) close it to others.

    Args:
        mirror: told what /metrics counts, as it happens.
        keys: digests of more keys, of an environment that is not this process's.
    """
    app = FastAPIOffline(  # its /docs asks no other host for Swagger's files
        title="vgs_ray", description="Value-guided search behind the OpenAI API.", version="0.1.0",
        responses=EVERYWHERE, redoc_url=None, static_url=DOCS_FILES,
    )  # fmt: skip
    describe(app)
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES, seconds=settings.request_timeout_s)
    if known := {*keys, *key_digests()}:
        app.add_middleware(ApiKeys, keys=known)
    elif is_loopback(settings.host):
        app.add_middleware(OwnHost, host=settings.host)
    handle_errors(app)
    metrics = Metrics(mirror)
    app.add_middleware(CountRefusals, metrics=metrics)
    allow_origins(app, settings.cors_origins)
    admission, counted = Admission(settings.max_beams, settings.max_waiting), instrumented(search, metrics)
    _search_routes(app, counted, settings, metrics, admission)
    _score_route(app, counted, settings, metrics, admission)
    _model_routes(app, settings)
    _state_routes(app, search, metrics)
    add_page(app)
    return app


def _search_routes(
    app: FastAPI, search: Searcher, settings: config.Serve, metrics: Metrics, admission: Admission
) -> None:
    async def solve(spec: SearchSpec, place: Place, listen: Listener | None = None) -> SearchResult:
        found = await counted_search(search, metrics, spec, place, listen)
        if settings.log_requests:
            log.info("%s", json.dumps({"problem": spec.problem, **search_details(found)}))
        return found

    def streamed(spec: SearchSpec, body: ChatRequest | CompletionRequest, reply: Reply) -> Response:
        spec = replace(spec, seed=seed_of(spec))
        events = body.search is not None and body.search.events
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        prompt = counted_prompt(search, metrics, spec)  # a prompt that can't be read is refused before a stream begins
        place = admission.take(spec.budget)  # what may fail comes before it
        start = start_of(spec, prompt, place.position) if events else None
        stream = Stream(
            body.model, usage, search.decode if events else None, api_error, reply is text_completion, start
        )
        return EventStream(stream.frames(lambda listen: solve(spec, place, listen)), place)

    async def answer(body: ChatRequest | CompletionRequest, request: Request, reply: Reply) -> Response:
        spec = resolve_search(body, settings)
        try:
            if body.stream:
                return streamed(spec, body, reply)
            with admission.take(spec.budget) as place:
                return JSONResponse(reply(await _while_connected(request, solve(spec, place)), body.model))
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            raise api_error(error, "messages" if isinstance(body, ChatRequest) else "prompt") from error

    @app.post("/v1/chat/completions", responses=searched(ChatReply))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Search an answer to the last user message."""
        return await answer(body, request, chat_completion)

    @app.post("/v1/completions", responses=searched(TextReply))
    async def completion(body: CompletionRequest, request: Request) -> Response:
        """Search a continuation of the prompt as it stands."""
        return await answer(body, request, text_completion)


def _score_route(
    app: FastAPI, search: Searcher, settings: config.Serve, metrics: Metrics, admission: Admission
) -> None:
    async def scored(given: Sequence[Tokens], body: ScoreRequest, place: Place) -> list[list[float]]:
        await waited(place, metrics)
        return await search.score(given, body.every_token, body.from_token)

    @app.post("/v1/score", responses=SCORED)
    async def score(body: ScoreRequest, request: Request) -> Response:
        """Values of texts or token ids, P(the finished answer will be correct)."""
        check_model(body.model, settings)
        try:
            given = [search.tokenize(each) if isinstance(each, str) else tuple(each) for each in body.input]
            search.check_scored(given, body.from_token)  # before it waits for room
            with admission.take(len(given)) as place:
                found = await _while_connected(request, scored(given, body, place))
            texts = await asyncio.to_thread(_texts, search, given, body) if body.return_text else None
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            raise api_error(error, "input") from error
        return JSONResponse(scores(found, body.model, sum(map(len, given)), texts))


def _texts(search: Searcher, given: Sequence[Tokens], body: ScoreRequest) -> list[list[str]]:
    """Of the tokens that have a value: all from `from_token` on, or the last one."""
    return [search.pieces(tokens[body.from_token if body.every_token else -1 :]) for tokens in given]


def _model_routes(app: FastAPI, settings: config.Serve) -> None:
    started = int(time.time())
    known = {
        name: {"id": name, "object": "model", "created": started, "owned_by": "vgs_ray", "search": options}
        for name, options in presets(settings).items()
    }

    @app.get("/v1/models", response_model=ModelsReply)
    async def models() -> dict[str, Any]:
        """Names of ways to search, with their options."""
        return {"object": "list", "data": list(known.values())}

    @app.get("/v1/models/{name}", response_model=ModelReply, responses=errors(404))
    async def one_model(name: str) -> dict[str, Any]:
        """One way to search."""
        check_model(name, settings)
        return known[name]


def _state_routes(app: FastAPI, search: Searcher, metrics: Metrics) -> None:
    @app.get("/healthz", responses=HEALTH)
    async def health() -> Response:
        """200 when both engines answer, else 503; asks each of them for one token."""
        engines = await search.probe()
        well = all(state == "ok" for state in engines.values())
        body = {"status": "ok" if well else "unhealthy", "engines": engines}
        return JSONResponse(body, 200 if well else 503)

    @app.get("/readyz", response_model=Ready)
    async def ready() -> dict[str, str]:
        """200 as soon as the engines have started; asks nobody."""
        return {"status": "ready"}

    @app.get("/metrics", responses=PLAIN, response_class=Response)
    async def numbers() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


async def _while_connected(request: Request, search: Coroutine[Any, Any, T]) -> T:
    """The result of `search`, which is cancelled when the client goes away or the server gives up this request.

    Raises:
        ClientGone: the client went away.
    """
    task, gone = asyncio.ensure_future(search), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    """Returns when the client goes away; the request's body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
