"""A value model that scores at random: the baseline that a trained value model has to beat."""

from __future__ import annotations

import random

from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Usage, Value


class RandomValue(Value):
    """A `Value` that is uniform in [0, 1) and a function of the tokens. It forwards no tokens."""

    def __init__(self) -> None:
        self.usage = Usage()

    async def score(self, tokens: Tokens) -> Score:
        return Score(random.Random(stable_seed(*tokens)).random())

    def close(self) -> None:
        """Nothing to free."""
