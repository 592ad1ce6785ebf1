"""OpenAI's request fields that this server does not support.

A value without effect (null, or one in `NEUTRAL`) is accepted. Any other value is refused, because an ignored option would
look like a working one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
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
"""Unsupported fields, each with its values that have no effect. Null never has an effect."""


RESPONSES_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "conversation": (),
    "max_tool_calls": (),
    "parallel_tool_calls": (True, False),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_retention": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
"""The same for `/v1/responses`."""
STATELESS = " because the server stores no responses"
RULES = {
    "top_logprobs": " because the engines keep the log-probability of the sampled token only",
    "previous_response_id": f"{STATELESS}; send the earlier messages in input",
    "conversation": f"{STATELESS}; send the earlier messages in input",
    "store": STATELESS,
    "background": STATELESS,
}
"""Why a field is not supported, where that is not obvious."""


def drop_unsupported(
    body: Mapping[str, Any], known: Collection[str], neutrals: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """The body without unsupported fields.

    Args:
        body: of a request.
        known: fields that this kind of request supports.
        neutrals: unsupported fields, each with its values that have no effect.

    Raises:
        ApiError: 400 if an unsupported field has a value that would have an effect.
    """
    unsupported = {name: neutral for name, neutral in neutrals.items() if name not in known}
    for name, neutral in unsupported.items():
        value = body.get(name)
        if value is not None and not any(
            value == each and type(value) is type(each) for each in (*neutral, *_as_floats(neutral))
        ):
            allowed = " or ".join(json.dumps(each) for each in neutral) or "null"
            rule = RULES.get(name, "")
            raise ApiError(
                400, f"{name} is {short(value)}, which is not supported{rule}: leave {name} out or send {allowed}", name,
                "unsupported_value",
            )  # fmt: skip
    return {name: value for name, value in body.items() if name not in unsupported}


def _as_floats(values: tuple[Any, ...]) -> tuple[float, ...]:
    """Integers as floats: most clients send 0 as 0.0. Booleans are not converted."""
    return tuple(float(value) for value in values if type(value) is int)
