"""Lengths that depend on each other: training takes whole sequences, and value engines score whole sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgs_ray.config import Recipe


def longest_sequence(recipe: Recipe) -> int:
    """Tokens of the longest training sequence that generation can make: prompt, roll-in up to a cut, roll-out.

    An engine stops when the whole sequence has `max_model_len` tokens. `sampling.max_tokens` counts the response only, and the
    length of the prompt is not limited.
    """
    config = recipe.roll_out
    lengths = [
        *([config.engine.max_model_len] if config.cuts else []),
        *(_roll_ins(recipe).values() if config.whole else []),
    ]
    return max(lengths, default=config.engine.max_model_len)


def _roll_ins(recipe: Recipe) -> dict[str, int]:
    """`max_model_len` of the engine of each generator, by its name."""
    return {each.name: (each.engine or recipe.roll_in.engine).max_model_len for each in recipe.roll_in.generators}


def length_faults(recipe: Recipe) -> Iterator[str]:
    """Mistakes in a recipe's lengths, each with the value, the rule and the remedy."""
    yield from _responses(recipe)
    yield from _training(recipe)
    yield from _generation(recipe)
    for stage in ("trees", "evaluate", "serve"):
        if recipe.uses_own_head(stage):
            continue
        engines = getattr(recipe, stage)
        policy, value = engines.policy_engine.max_model_len, engines.value_engine.max_model_len
        if value < policy:
            yield (
                f"{stage}.value_engine.max_model_len is {value}, and the policy's engine writes sequences of up to {policy} "
                f"tokens, which must be scored: set {stage}.value_engine.max_model_len to {policy} or lower "
                f"{stage}.policy_engine.max_model_len"
            )


def _responses(recipe: Recipe) -> Iterator[str]:
    """A response that fills the context leaves no room for its prompt."""
    ins, outs = recipe.roll_in, recipe.roll_out
    used = [("roll_out", outs.sampling, "roll_out.engine", outs.engine)]
    for index, generator in enumerate(ins.generators):
        name = f"roll_in.generators.{index}.engine" if generator.engine else "roll_in.engine"
        used.append(("roll_in", ins.sampling, name, generator.engine or ins.engine))
    for section, sampling, name, engine in dict.fromkeys(used):
        if sampling.max_tokens >= engine.max_model_len:
            yield (
                f"{section}.sampling.max_tokens is {sampling.max_tokens} and {name}.max_model_len {engine.max_model_len}; the "
                f"longest response must fit with its prompt: lower {section}.sampling.max_tokens or raise {name}.max_model_len"
            )


def _training(recipe: Recipe) -> Iterator[str]:
    given, longest = recipe.train.max_length, longest_sequence(recipe)
    if 0 < given < longest:
        yield (
            f"train.max_length is {given}, and stage roll_out writes sequences of up to {longest} tokens, prompt and response "
            "(max_model_len of the engine that writes them); training must take them whole, or it never sees the responses that "
            f"reach the limit: leave train.max_length at 0, which means {longest}, or lower that max_model_len"
        )


def _generation(recipe: Recipe) -> Iterator[str]:
    """A roll-in may be cut at any position, and the reference policy needs room to continue from it."""
    if not recipe.roll_out.cuts:
        return
    whole, limit = recipe.roll_in.sampling.max_tokens, recipe.roll_out.sampling.max_tokens
    if whole > limit:
        yield (
            f"roll_in.sampling.max_tokens is {whole} and roll_out.sampling.max_tokens {limit}; a roll-in that is cut after "
            f"{limit} tokens leaves no room for a completion: raise roll_out.sampling.max_tokens to {whole} or lower the other"
        )
    longest = recipe.roll_out.engine.max_model_len
    for name, size in _roll_ins(recipe).items():
        if size > longest:
            yield (
                f"the engine of generator {name!r} has max_model_len {size} and roll_out.engine.max_model_len is {longest}; the "
                f"reference policy must be able to read what a generator wrote: raise the latter to {size} or lower the former"
            )
