"""The options of a request's search: those of its model, of its `reasoning_effort` and of `search`; and the sizes that follow.

In: a request and the server's `config.Serve`. Out: `SearchOptions`, then a beam and a budget within the server's limits, or an
`ApiError` that names the field.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vgs_ray import config
from vgs_ray.config import Beam
from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.requests import ChatRequest, CompletionRequest, Effort, SearchOptions

EFFORTS: dict[Effort, float] = {"none": 0.0, "minimal": 0.0, "low": 0.25, "medium": 1.0, "high": 2.0, "xhigh": 4.0}
"""Factor by which a `reasoning_effort` changes the budget. One group or sample is left at least; `none` is the model `policy`."""


def presets(settings: config.Serve) -> dict[str, dict[str, Any]]:
    """Search options by model name. Options of the request override them. The first preset is the server's configuration."""
    fewer = max(settings.beam.groups // 4, 1)
    return {
        settings.model_name: {},
        "vgs": {},
        "vgs-fast": {"groups": fewer},
        "best-of-n": {"method": "sample", "select": "best"},
        "majority": {"method": "sample", "select": "majority"},
        "policy": {"method": "sample", "select": "best", "budget": 1},
    }


def check_model(name: str, settings: config.Serve) -> None:
    """Check that a preset has this name.

    Raises:
        ApiError: 404.
    """
    known = presets(settings)
    if name not in known:
        raise ApiError(
            404, f"model is {short(name)}; this server has {', '.join(known)}: use one of them (GET /v1/models)", "model",
            "model_not_found",
        )  # fmt: skip


def search_options(
    request: ChatRequest | CompletionRequest, settings: config.Serve
) -> tuple[SearchOptions, tuple[str, ...]]:
    """The options of the model, overridden by `reasoning_effort`, and that by `search`; and warnings."""
    check_model(request.model, settings)
    requested = request.search.model_dump(exclude_unset=True) if request.search else {}
    sized = {"budget", "groups"} & requested.keys()
    effort = None if sized or isinstance(request, CompletionRequest) else request.reasoning_effort
    preset = presets(settings)["policy" if effort == "none" else request.model]
    if requested.get("method", preset.get("method")) != preset.get("method") or "budget" in requested:
        # A preset's sizes belong to its method, and a requested budget replaces its number of groups.
        preset = {name: value for name, value in preset.items() if name not in ("budget", "groups")}
    options = SearchOptions(**preset | requested)
    warnings: tuple[str, ...] = ()
    if effort and "budget" not in preset:
        options, warnings = _with_effort(options, effort, settings)
    default_budget = options.budget or settings.beam.budget
    if options.method == "sample" and "budget" not in requested and (request.n or 1) > default_budget:
        options = options.model_copy(update={"budget": request.n})
    return options, warnings


def _with_effort(
    options: SearchOptions, effort: Effort, settings: config.Serve
) -> tuple[SearchOptions, tuple[str, ...]]:
    """More or fewer groups, or samples, as far as the server's limit allows; and a warning if it does not."""
    beam = settings.beam
    if options.method == "sample":
        name, default, width = "budget", beam.budget, 1
    else:
        name, default = "groups", options.groups or beam.groups
        width = (options.keep or beam.keep) * (options.branch or beam.branch)
    wanted, most = max(int(default * EFFORTS[effort]), 1), max(settings.max_budget // width, 1)
    warning = (
        f"reasoning_effort is {effort}, which is a budget of {wanted * width}; this server allows at most "
        f"{settings.max_budget}: it was reduced to {most * width}"
    )
    return options.model_copy(update={name: min(wanted, most)}), (warning,) if wanted > most else ()


def beam_and_budget(options: SearchOptions, settings: config.Serve) -> tuple[Beam, int]:
    """The beam and the budget. If only one of `budget` and `groups` is set, it determines the other."""
    sizes = {
        name: size
        for name in ("keep", "branch", "block", "groups", "align")
        if (size := getattr(options, name)) is not None
    }
    if options.method == "sample":
        for name in sizes:
            raise ApiError(
                400, f"search.{name} is an option of method 'beam', and the method is 'sample': leave it out or change the "
                "method", f"search.{name}", "invalid_value",
            )  # fmt: skip
        beam, budget = settings.beam, options.budget or settings.beam.budget
    else:
        beam = _with_budget(replace(settings.beam, **sizes), options)
        budget = beam.budget
    _check_sizes(options, budget, settings)
    return beam, budget


def _check_sizes(options: SearchOptions, budget: int, settings: config.Serve) -> None:
    if budget > settings.max_budget:
        param = "search.budget" if options.budget else "search"
        formula = "" if options.method == "sample" else " (keep * branch * groups)"
        raise ApiError(
            400, f"search.budget is {budget}{formula}; this server allows at most {settings.max_budget}: lower it", param,
            "budget_too_large",
        )  # fmt: skip
    max_block = settings.sampling.max_tokens
    if options.block and options.block > max_block:
        raise ApiError(
            400, f"search.block is {options.block}; an answer has at most {max_block} tokens: lower it", "search.block",
            "invalid_value",
        )  # fmt: skip


def _with_budget(beam: Beam, options: SearchOptions) -> Beam:
    """The beam with the number of groups that the requested budget implies."""
    if options.budget is None:
        return beam
    width = beam.width
    if options.groups is None and options.budget % width == 0:
        return replace(beam, groups=options.budget // width)
    if options.groups is not None and options.budget == beam.budget:
        return beam
    rule = (
        f"a multiple of keep * branch ({beam.keep} * {beam.branch})"
        if options.groups is None
        else f"keep * branch * groups ({beam.keep} * {beam.branch} * {beam.groups})"
    )
    raise ApiError(
        400, f"search.budget is {options.budget}; with method 'beam' it must be {rule}: change the budget or the shape",
        "search.budget", "invalid_value",
    )  # fmt: skip
