"""Stop strings: an answer ends before the first of them, as at other servers.

In: a `Policy` and the strings. Out: the same `Policy`, whose answers end at the token that completes one. It reads the
text itself, because a string may begin in one block and end in the next, which engines see as two sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy

PIECE = 256
"""Tokens between two looks: at most so many are written past a stop string."""
BROKEN = "\ufffd"
"""What tokenizers decode a part of a character to."""
PARTS = 4
"""Tokens that one character may have: the bytes of its UTF-8."""


class StopStringPolicy:
    """A `Policy` for one search.

    Args:
        prompt: tokens of the prompt, which are not looked at.
        stop: none of them is empty.
        decode: tokens to text.
        pieces: tokens to the text of each.

    Attributes:
        wasted: tokens that were written past a stop string, and thrown away.
    """

    def __init__(
        self,
        policy: Policy,
        prompt: int,
        stop: tuple[str, ...],
        decode: Callable[[Tokens], str],
        pieces: Callable[[Tokens], list[str]],
    ) -> None:
        self.policy, self.prompt, self.stop, self.usage = policy, prompt, stop, policy.usage
        self.decode, self.pieces, self.wasted = decode, pieces, 0

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`, ended by the token that completes a stop string: then it is finished. It has no log-probability."""
        tokens: Tokens = ()
        prefilled = turn = 0
        while True:
            limits = replace(sampling, max_tokens=min(PIECE, sampling.max_tokens - len(tokens)))
            made = await self.policy.extend(prefix + tokens, limits, stable_seed(seed, "piece", turn) if turn else seed)
            response, tokens, turn = prefix[self.prompt :] + tokens, tokens + made.tokens, turn + 1
            # What a later piece forwards again is new text, not prefix: it was in no cache, and costs as much as any.
            prefilled = min(prefilled + made.prefilled, len(prefix))
            end = self._end(response, made.tokens)
            if end is not None:
                self.wasted += len(made.tokens) - end
                return Completion(tokens[: len(tokens) - len(made.tokens) + end], True, "stop", math.nan, prefilled)
            cut_short = made.finish_reason == "stop" or len(made.tokens) < limits.max_tokens
            if cut_short or len(tokens) >= sampling.max_tokens:
                return made._replace(tokens=tokens, mean_logprob=math.nan, prefilled=prefilled)

    def _end(self, before: Tokens, new: Tokens) -> int | None:
        """How many of the new tokens there are up to the first end of a stop string; None where there is none."""
        start = max(len(before) - PARTS * max(map(len, self.stop)), 0)
        while start and self.decode(before[start:] + new).startswith(BROKEN):  # not in the middle of a character
            start -= 1
        tail = before[start:]
        if not any(stop in self.decode(tail + new) for stop in self.stop):
            return None
        text = ""
        for at, piece in enumerate(self.pieces(tail + new)):
            text += piece
            if at >= len(tail) and any(stop in text for stop in self.stop):
                return at + 1 - len(tail)
        return None


def text_before_stop(text: str, stop: tuple[str, ...], start: int = 0) -> str:
    """The text before that of the strings, at or after `start`, which is complete first."""
    places = [(at + len(each), at) for each in stop if (at := text.find(each, start)) >= 0]
    return text[: min(places)[1]] if places else text
