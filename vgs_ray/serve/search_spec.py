"""What a request makes the searcher do: defaults filled in, maxima held.

In: a request and the server's `config.Serve`. Out: a `SearchSpec`, or an `ApiError` that names the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vgs_ray import config
from vgs_ray.config import Beam, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.requests import ChatRequest, CompletionRequest, Method, SearchOptions, Select


@dataclass(frozen=True)
class SearchSpec:
    """A request with every choice made: what the searcher runs.

    Attributes:
        problem: its text, or token ids where the client sent those.
        raw: the problem is to be continued as it stands, not to be asked.
        seed: None lets the searcher draw one; the reply says which.
        deadline_s: None waits for all.
        n: answers of the reply.
        stop: strings before which an answer ends.
        warnings: what of the request was changed, for the reply.
    """

    problem: str | Tokens
    method: Method
    select: Select
    beam: Beam
    budget: int
    sampling: Sampling
    seed: int | None
    deadline_s: float | None = None
    raw: bool = False
    n: int = 1
    stop: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def presets(settings: config.Serve) -> dict[str, dict[str, Any]]:
    """Search options by model name; a request's own are stronger. The first is the server's configuration."""
    fewer = max(settings.beam.groups // 4, 1)
    return {
        settings.model_name: {},
        "vgs": {},
        "vgs-fast": {"groups": fewer},
        "best-of-n": {"method": "sample", "select": "best"},
        "majority": {"method": "sample", "select": "majority"},
        "policy": {"method": "sample", "select": "best", "budget": 1},
    }


def resolve_search(request: ChatRequest | CompletionRequest, settings: config.Serve) -> SearchSpec:
    """Fill in defaults and hold the maxima.

    Raises:
        ApiError: 404 for another model; 400 for what is empty, too large or does not fit together.
    """
    options = _options(request, settings)
    shape, budget = _shape(options, settings)
    n = _choices(request, options, budget if options.method == "sample" else shape.keep * shape.groups)
    chat = isinstance(request, ChatRequest)
    sampling, warnings = _sampling(request, options, settings.sampling)
    return SearchSpec(
        problem=_problem(request, settings.max_problem_chars),
        method=options.method,
        select=options.select,
        beam=shape,
        budget=budget,
        sampling=sampling,
        seed=request.seed if options.seed is None else options.seed,
        deadline_s=options.deadline_s,
        raw=not chat,
        n=n,
        stop=tuple(request.stop or ()),
        warnings=warnings,
    )


def check_model(name: str, settings: config.Serve) -> None:
    """Raise the 404 of a name that is none of the presets."""
    known = presets(settings)
    if name not in known:
        raise ApiError(
            404, f"model is {short(name)}; this server has {', '.join(known)}: use one of them (GET /v1/models)", "model",
            "model_not_found",
        )  # fmt: skip


def _options(request: ChatRequest | CompletionRequest, settings: config.Serve) -> SearchOptions:
    """The preset's options under those of the request."""
    check_model(request.model, settings)
    given = request.search.model_dump(exclude_unset=True) if request.search else {}
    preset = presets(settings)[request.model]
    if given.get("method", preset.get("method")) != preset.get("method") or "budget" in given:
        # Sizes of a preset belong to its method, and a budget says what its number of groups would.
        preset = {name: value for name, value in preset.items() if name not in ("budget", "groups")}
    options = SearchOptions(**preset | given)
    if (
        options.method == "sample"
        and "budget" not in given
        and (request.n or 1) > (options.budget or settings.beam.budget)
    ):
        options = options.model_copy(update={"budget": request.n})
    return options


def _choices(request: ChatRequest | CompletionRequest, options: SearchOptions, answers: int) -> int:
    """As many as asked for, of the answers that the search ends with."""
    n = request.n or 1
    if n > answers:
        count = "search.budget" if options.method == "sample" else "keep * groups"
        raise ApiError(
            400, f"n is {n}; this search ends with {answers} answers ({count}): lower n or raise search.budget", "n",
            "invalid_value",
        )  # fmt: skip
    return n


def _problem(request: ChatRequest | CompletionRequest, longest: int) -> str | Tokens:
    if isinstance(request, ChatRequest):
        return _checked([message.text() for message in request.messages if message.role == "user"], "messages", longest)
    return tuple(request.prompt) if isinstance(request.prompt, list) else _checked([request.prompt], "prompt", longest)


def _checked(found: Sequence[str], param: str, longest: int) -> str:
    """The last text, which must be there and short enough."""
    if not found or not found[-1].strip():
        what = "is empty" if found else "is missing"
        who = "the last user message" if param == "messages" else param
        raise ApiError(400, f"{who} {what}; it is the problem to solve: add its text", param, "empty_problem")
    if len(found[-1]) > longest:
        raise ApiError(
            400,
            f"the problem has {len(found[-1])} characters; this server takes at most {longest}: shorten it",
            param,
            "problem_too_long",
        )
    return found[-1]


def _shape(options: SearchOptions, settings: config.Serve) -> tuple[Beam, int]:
    """The beam and the budget; whichever of `budget` and `groups` is absent follows from the other."""
    given = {
        name: size for name in ("keep", "branch", "block", "groups") if (size := getattr(options, name)) is not None
    }
    if options.method == "sample":
        for name in given:
            raise ApiError(
                400, f"search.{name} belongs to method 'beam', and the method is 'sample': leave it out or change the method",
                f"search.{name}", "invalid_value",
            )  # fmt: skip
        shape, budget = settings.beam, options.budget or settings.beam.budget
    else:
        shape = replace(settings.beam, **given)
        shape = _fit_groups(shape, options)
        budget = shape.budget
    if budget > settings.max_budget:
        named = "search.budget" if options.budget else "search"
        what = "" if options.method == "sample" else " (keep * branch * groups)"
        raise ApiError(
            400, f"search.budget is {budget}{what}; this server allows at most {settings.max_budget}: ask for less",
            named, "budget_too_large",
        )  # fmt: skip
    if shape.block > settings.sampling.max_tokens and options.block:
        raise ApiError(
            400, f"search.block is {options.block}; an answer has at most {settings.sampling.max_tokens} tokens: lower it",
            "search.block", "invalid_value",
        )  # fmt: skip
    return shape, budget


def _fit_groups(shape: Beam, options: SearchOptions) -> Beam:
    if options.budget is None:
        return shape
    width = shape.keep * shape.branch
    if options.groups is None and options.budget % width == 0:
        return replace(shape, groups=options.budget // width)
    if options.groups is not None and options.budget == shape.budget:
        return shape
    rule = (
        f"a multiple of keep * branch ({shape.keep} * {shape.branch})"
        if options.groups is None
        else f"keep * branch * groups ({shape.keep} * {shape.branch} * {shape.groups})"
    )
    raise ApiError(
        400, f"search.budget is {options.budget}; with method 'beam' it must be {rule}: change it or the shape",
        "search.budget", "invalid_value",
    )  # fmt: skip


def _sampling(
    request: ChatRequest | CompletionRequest, options: SearchOptions, default: Sampling
) -> tuple[Sampling, tuple[str, ...]]:
    """How to sample, and warnings."""
    longest, warnings = _longest(request, options, default.max_tokens)
    given = {
        field: value
        for field in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        if (value := getattr(request, field)) is not None
    }
    if given.get("top_k") == -1:
        given["top_k"] = 0  # both turn it off
    return replace(default, max_tokens=longest, **given), warnings


def _longest(
    request: ChatRequest | CompletionRequest, options: SearchOptions, most: int
) -> tuple[int, tuple[str, ...]]:
    """Tokens of the longest answer, and warnings.

    OpenAI's fields are lowered to the server's limit, because many clients always send a large number. Who writes
    `search.max_tokens` knows this server, and hears of the limit.
    """
    asked = {
        "search.max_tokens": options.max_tokens,
        "max_completion_tokens": getattr(request, "max_completion_tokens", None),
        "max_tokens": request.max_tokens,
    }
    name, longest = next(((name, size) for name, size in asked.items() if size is not None), ("", most))
    if longest <= most:
        return longest, ()
    limit = f"{name} is {longest}; this server allows at most {most} tokens for an answer"
    if name == "search.max_tokens":
        raise ApiError(400, f"{limit}: ask for less", name, "max_tokens_too_large")
    return most, (f"{limit}: it was lowered to {most}",)
