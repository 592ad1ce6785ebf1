"""Scorers to compare a value model with: chance, and models that have another tokenizer than the policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Usage, Value

if TYPE_CHECKING:
    from vgs_ray.engines.loop import EngineLoop
    from vgs_ray.engines.vllm import VllmValue


class RandomValue(Value):
    """A `Value` that knows nothing: uniform in [0, 1), a function of the tokens. It forwards no token."""

    def __init__(self) -> None:
        self.usage = Usage()

    async def score(self, tokens: Tokens) -> Score:
        return Score(random.Random(stable_seed(*tokens)).random())

    def close(self) -> None:
        """Nothing is held."""


class Translated(Value):
    """A `Value` over another vocabulary: the policy's tokens become text, and the text becomes the scorer's tokens.

    Special tokens of the policy (the turns of its chat template) are left out, because the scorer does not know them.

    Args:
        value: reads tokens of its own vocabulary.
        text_of: tokens of the policy to text.
        tokens_of: text to tokens of the scorer.
    """

    def __init__(self, value: VllmValue, text_of: Callable[[Tokens], str], tokens_of: Callable[[str], Tokens]) -> None:
        self.value, self.text_of, self.tokens_of = value, text_of, tokens_of
        self.usage = value.usage  # one object: what the scorer counts is seen here

    async def score(self, tokens: Tokens) -> Score:
        return await self.value.score(await asyncio.to_thread(lambda: self.tokens_of(self.text_of(tokens))))

    @property
    def loop(self) -> EngineLoop[Any]:
        """Of the engine behind it."""
        return self.value.loop

    def close(self) -> None:
        """End the engine behind it."""
        self.value.close()
