"""OpenAI's fields that this server does not have: each passes with a value that asks for nothing, and is refused otherwise.

An ignored option would look like one that works.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vgs_ray.serve.errors import ApiError, short

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "web_search_options": (),
    "verbosity": ("medium",),
}
"""OpenAI's fields that are not supported, and the values of them that ask for nothing; null always does."""


def refuse_unsupported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing.

    Raises:
        ApiError: 400 for a field that asks for what is not supported.
    """
    for name, values in NEUTRAL.items():
        value = body.get(name)
        if value is not None and not any(
            value == one and type(value) is type(one) for one in (*values, *_floats(values))
        ):
            allowed = " or ".join(json.dumps(one) for one in values) or "null"
            raise ApiError(
                400, f"{name} is {short(value)}, which is not supported: leave {name} out or send {allowed}",
                name, "unsupported_value",
            )  # fmt: skip
    return {name: value for name, value in body.items() if name not in NEUTRAL}


def _floats(values: tuple[Any, ...]) -> tuple[float, ...]:
    """0 may be written 0.0, as most clients do; but neither 0 nor 1 may stand for false and true."""
    return tuple(float(value) for value in values if type(value) is int)
