"""Stop strings: an answer ends before the first of them.

A stop string can begin in one block and end in the next, which the engines process as two sequences. Therefore they are found
here, by a `Policy` around the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Interrupted, Policy

PIECE = 256
"""Tokens between two checks: at most this many are generated after a stop string."""
REPLACEMENT = "\ufffd"
"""Tokenizers decode an incomplete character to this one."""
MAX_TOKENS_PER_CHARACTER = 4
"""A character has at most 4 bytes in UTF-8, and each byte can be a token."""


class StopStringPolicy:
    """A `Policy` for one search, whose completions end at the token that completes a stop string.

    Args:
        policy: generates the tokens.
        prompt: number of tokens in the prompt, which is not searched.
        stop: the stop strings; none is empty.
        decode: tokens to text.
        pieces: tokens to the text of each token.

    Attributes:
        wasted: tokens generated after a stop string and discarded.
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
        """As `Policy.extend`. A completion that ends at a stop string is finished.

        Its mean log-probability includes tokens after the stop string.
        """
        tokens: Tokens = ()
        logprobs: tuple[float, ...] | None = ()
        prefilled, turn, logprob = 0, 0, 0.0
        while True:
            limits = replace(sampling, max_tokens=min(PIECE, sampling.max_tokens - len(tokens)))
            try:
                piece = await self.policy.extend(
                    prefix + tokens, limits, stable_seed(seed, "piece", turn) if turn else seed
                )
            except Interrupted as error:
                partial = error.completion
                raise Interrupted(partial._replace(tokens=tokens + partial.tokens)) from None
            response, tokens, turn = prefix[self.prompt :] + tokens, tokens + piece.tokens, turn + 1
            # A later piece prefills the earlier ones of this block, which are not part of the prefix.
            prefilled = min(prefilled + piece.prefilled, len(prefix))
            logprob += piece.mean_logprob * len(piece.tokens)
            mean_logprob = logprob / max(len(tokens), 1)
            logprobs = None if logprobs is None or piece.logprobs is None else logprobs + piece.logprobs
            end = self._end(response, piece.tokens)
            if end is not None:
                self.wasted += len(piece.tokens) - end
                kept = len(tokens) - len(piece.tokens) + end
                logprobs = logprobs and logprobs[:kept]
                return Completion(tokens[:kept], True, "stop", mean_logprob, prefilled, logprobs=logprobs)
            ended = piece.finish_reason == "stop" or len(piece.tokens) < limits.max_tokens
            if ended or len(tokens) >= sampling.max_tokens:
                return piece._replace(tokens=tokens, mean_logprob=mean_logprob, prefilled=prefilled, logprobs=logprobs)

    def _end(self, before: Tokens, new: Tokens) -> int | None:
        """Number of new tokens up to the first one that completes a stop string; None if no token does."""
        start = max(len(before) - MAX_TOKENS_PER_CHARACTER * max(map(len, self.stop)), 0)
        while start and self.decode(before[start:] + new).startswith(REPLACEMENT):  # inside of a character
            start -= 1
        tail = before[start:]
        if not any(stop in self.decode(tail + new) for stop in self.stop):
            return None
        text = ""
        for index, piece in enumerate(self.pieces(tail + new)):
            text += piece
            if index >= len(tail) and any(stop in text for stop in self.stop):
                return index + 1 - len(tail)
        return None


def text_before_stop(text: str, stop: tuple[str, ...], start: int = 0) -> str:
    """The text before the stop string that is complete first, searched from index `start`."""
    matches = [(index + len(each), index) for each in stop if (index := text.find(each, start)) >= 0]
    return text[: min(matches)[1]] if matches else text
