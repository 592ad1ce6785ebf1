"""Resolve a request to the search that it specifies: fill in defaults and enforce the server's limits.

In: a request and the server's `config.Serve`. Out: a `SearchSpec`, or an `ApiError` that names the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vgs_ray import config
from vgs_ray.config import Beam, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Grammar
from vgs_ray.prompts import Turn
from vgs_ray.serve.answer_format import grammar_of
from vgs_ray.serve.errors import ApiError
from vgs_ray.serve.requests import ChatRequest, CompletionRequest, Message, Method, SearchOptions, Select
from vgs_ray.serve.search_options import beam_and_budget, search_options

CONVERSATION_WARNING = (
    "the value model was trained on single problems: the values of an answer to a conversation may be wrong"
)


@dataclass(frozen=True)
class Conversation:
    """Messages for the policy's chat template. The last one is the problem."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class SearchSpec:
    """A search with every default filled in.

    Attributes:
        problem: its text, a conversation of several messages, or token ids if the client sent those.
        raw: continue the problem without chat template and instruction.
        seed: None lets the searcher draw one, which the reply contains.
        deadline_s: None for no deadline.
        n: number of answers in the reply.
        stop: strings before which an answer ends.
        warnings: changes that the server made to the request.
        confidence: at which the vote is decided and the rest of the search is cancelled; None runs the whole search.
        logprobs: also return the log-probabilities of the tokens of each choice.
        min_confidence: the lowest probability with which the answer is given; None always gives it.
        grammar: of the content; None for any text.
    """

    problem: str | Conversation | Tokens
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
    confidence: float | None = None
    logprobs: bool = False
    min_confidence: float | None = None
    grammar: Grammar | None = None


def resolve_search(request: ChatRequest | CompletionRequest, settings: config.Serve) -> SearchSpec:
    """Fill in defaults and enforce limits.

    Raises:
        ApiError: 404 for an unknown model; 400 for a field that is empty, too large, or conflicts with another field.
    """
    options, reduced = search_options(request, settings)
    beam, budget = beam_and_budget(options, settings)
    answers = budget if options.method == "sample" else beam.keep * beam.groups
    sampling, warnings = _sampling(request, options, settings.sampling)
    warnings = (*reduced, *warnings)
    problem = _problem(request, settings.max_problem_chars)
    if isinstance(problem, Conversation):
        warnings = (*warnings, CONVERSATION_WARNING)
    return SearchSpec(
        problem=problem,
        method=options.method,
        select=options.select,
        beam=beam,
        budget=budget,
        sampling=sampling,
        seed=request.seed if options.seed is None else options.seed,
        deadline_s=options.deadline_s,
        raw=not isinstance(request, ChatRequest),
        n=_number_of_choices(request, options, answers),
        stop=tuple(request.stop or ()),
        warnings=warnings,
        confidence=options.confidence,
        logprobs=request.wants_logprobs(),
        min_confidence=options.min_confidence,
        grammar=_grammar(request),
    )


def _grammar(request: ChatRequest | CompletionRequest) -> Grammar | None:
    if not isinstance(request, ChatRequest):
        return None
    grammar = grammar_of(request.response_format, request.structured_outputs, request.format_field)
    if grammar and request.logprobs:
        raise ApiError(
            400, f"logprobs is true and {request.format_field} or structured_outputs asks for a form of the content, whose "
            "tokens have no log-probabilities: leave one of them out", "logprobs", "invalid_value",
        )  # fmt: skip
    return grammar


def _number_of_choices(request: ChatRequest | CompletionRequest, options: SearchOptions, answers: int) -> int:
    """`n`, which is at most the number of answers of the search."""
    n = request.n or 1
    if n > answers:
        source = "search.budget" if options.method == "sample" else "keep * groups"
        raise ApiError(
            400, f"n is {n}; this search has {answers} answers ({source}): lower n or raise search.budget", "n",
            "invalid_value",
        )  # fmt: skip
    return n


def _problem(request: ChatRequest | CompletionRequest, max_chars: int) -> str | Conversation | Tokens:
    if isinstance(request, ChatRequest):
        return _conversation(request.messages, max_chars, request.prompt_field)
    if isinstance(request.prompt, list):
        return tuple(request.prompt)
    _check_text(request.prompt, "prompt", "prompt", max_chars)
    return request.prompt


def _conversation(messages: Sequence[Message], max_chars: int, param: str) -> str | Conversation:
    """The only message, or all of them."""
    turns = [Turn(message.turn_role(), message.text()) for message in messages]
    if turns[-1].role != "user":
        raise ApiError(
            400, f"the last message is of the {messages[-1].role}; it is the problem to solve: end with a message of the user",
            param, "invalid_value",
        )  # fmt: skip
    _check_text(turns[-1].text, "the last message", param, max_chars)
    if len(turns) == 1:
        return turns[0].text
    _check_length(sum(len(turn.text) for turn in turns), "the conversation", param, max_chars)
    return Conversation(tuple(turns))


def _check_text(text: str, name: str, param: str, max_chars: int) -> None:
    """Check that a problem is not empty or too long."""
    if not text.strip():
        raise ApiError(400, f"{name} is empty; it is the problem to solve: add its text", param, "empty_problem")
    _check_length(len(text), "the problem", param, max_chars)


def _check_length(chars: int, name: str, param: str, max_chars: int) -> None:
    if chars > max_chars:
        message = f"{name} has {chars} characters; this server accepts at most {max_chars}: shorten it"
        raise ApiError(400, message, param, "problem_too_long")


def _sampling(
    request: ChatRequest | CompletionRequest, options: SearchOptions, default: Sampling
) -> tuple[Sampling, tuple[str, ...]]:
    """Sampling parameters, and warnings."""
    max_tokens, warnings = _max_tokens(request, options, default.max_tokens)
    requested = {
        field: value
        for field in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        if (value := getattr(request, field)) is not None
    }
    if requested.get("top_k") == -1:
        requested["top_k"] = 0  # both disable it
    return replace(default, max_tokens=max_tokens, **requested), warnings


def _max_tokens(
    request: ChatRequest | CompletionRequest, options: SearchOptions, limit: int
) -> tuple[int, tuple[str, ...]]:
    """Maximum tokens of an answer, and warnings.

    OpenAI's fields are reduced to the server's limit, because many clients always send a large number. `search.max_tokens` is
    specific to this server, so a value above the limit is an error.
    """
    fields = {
        "search.max_tokens": options.max_tokens,
        "max_output_tokens": getattr(request, "max_output_tokens", None),
        "max_completion_tokens": getattr(request, "max_completion_tokens", None),
        "max_tokens": request.max_tokens,
    }
    name, requested = next(((name, size) for name, size in fields.items() if size is not None), ("", limit))
    if requested <= limit:
        return requested, ()
    message = f"{name} is {requested}; this server allows at most {limit} tokens per answer"
    if name == "search.max_tokens":
        raise ApiError(400, f"{message}: lower it", name, "max_tokens_too_large")
    return limit, (f"{message}: it was reduced to {limit}",)
