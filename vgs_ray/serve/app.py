"""The endpoint as an ASGI application: value-guided search behind the OpenAI API. No Ray here.

In: a `Searcher` and `config.Serve`. Out: a FastAPI application, which Ray Serve, uvicorn or any other ASGI server can run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from vgs_ray import config
from vgs_ray.serve.access import ApiKeys, OwnHost, allow_origins, is_loopback, key_digests
from vgs_ray.serve.admission import Admission, Place, Take
from vgs_ray.serve.error_handlers import add_error_handlers
from vgs_ray.serve.instrumented import CountRefusals, instrumented
from vgs_ray.serve.limits import MAX_BODY_BYTES, BodyLimit
from vgs_ray.serve.metrics import Metrics, Mirror
from vgs_ray.serve.openapi import COMMON_ERRORS, HEALTH_RESPONSES, METRICS_RESPONSES, customize_openapi, errors
from vgs_ray.serve.replies import ModelReply, ModelsReply, Ready
from vgs_ray.serve.search_options import check_model, presets
from vgs_ray.serve.search_routes import Routes, add_score_route, add_search_routes
from vgs_ray.serve.searcher import Searcher
from vgs_ray.serve.web_page import DOCS_FILES, add_page


def create_app(
    searcher: Searcher,
    settings: config.Serve,
    mirror: Mirror | None = None,
    keys: Sequence[bytes] = (),
    take: Take | None = None,
) -> FastAPI:
    """The application with all its routes.

    Args:
        searcher: runs the searches.
        settings: the recipe's section serve.
        mirror: receives every change of a metric.
        keys: SHA-256 digests of API keys, in addition to those in the environment (see `access.KEYS`).
        take: takes a place for a search; by default from an `Admission` of this application alone.
    """
    app = FastAPIOffline(  # serves the files of /docs itself
        title="vgs_ray", description="Value-guided search behind the OpenAI API.", version="0.1.0",
        responses=COMMON_ERRORS, redoc_url=None, static_url=DOCS_FILES,
    )  # fmt: skip
    customize_openapi(app)
    add_error_handlers(app)
    metrics = Metrics(mirror)
    _add_middleware(app, settings, metrics, {*keys, *key_digests()})
    routes = Routes(instrumented(searcher, metrics), settings, metrics, take or _own_admission(settings))
    add_search_routes(app, routes)
    add_score_route(app, routes)
    _add_model_routes(app, settings)
    _add_state_routes(app, searcher, metrics)
    add_page(app)
    return app


def _own_admission(settings: config.Serve) -> Take:
    admission = Admission(settings.max_beams, settings.max_waiting)

    async def take(beams: int) -> Place:
        return admission.take(beams)

    return take


def _add_middleware(app: FastAPI, settings: config.Serve, metrics: Metrics, keys: set[bytes]) -> None:
    """Middleware from the inside out: the last one sees a request first."""
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES, seconds=settings.request_timeout_s)
    if keys:
        app.add_middleware(ApiKeys, keys=keys)
    elif is_loopback(settings.host):
        app.add_middleware(OwnHost, host=settings.host)
    app.add_middleware(CountRefusals, metrics=metrics)
    allow_origins(app, settings.cors_origins)


def _add_model_routes(app: FastAPI, settings: config.Serve) -> None:
    started = int(time.time())
    replies: dict[str, ModelReply] = {
        name: {"id": name, "object": "model", "created": started, "owned_by": "vgs_ray", "search": options}
        for name, options in presets(settings).items()
    }

    @app.get("/v1/models")
    async def models() -> ModelsReply:
        """List the search presets with their options."""
        return {"object": "list", "data": list(replies.values())}

    @app.get("/v1/models/{name}", responses=errors(404))
    async def one_model(name: str) -> ModelReply:
        """One search preset."""
        check_model(name, settings)
        return replies[name]


def _add_state_routes(app: FastAPI, searcher: Searcher, recorded: Metrics) -> None:
    @app.get("/healthz", responses=HEALTH_RESPONSES)
    async def health() -> Response:
        """200 if both engines respond, else 503. Requests one token of each engine."""
        engines = await searcher.probe()
        healthy = all(state == "ok" for state in engines.values())
        body = {"status": "ok" if healthy else "unhealthy", "engines": engines}
        return JSONResponse(body, 200 if healthy else 503)

    @app.get("/readyz")
    async def ready() -> Ready:
        """200 as soon as the engines have started. Sends nothing to them."""
        return {"status": "ready"}

    @app.get("/metrics", responses=METRICS_RESPONSES, response_class=Response)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(recorded.text(), media_type="text/plain; version=0.0.4")
