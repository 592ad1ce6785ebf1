"""A vLLM engine that is policy and value in one: the value of a block comes from the forward pass that generated it.

In: a policy with a value head, written by `PolicyValueModel.save_pretrained` or `vgs_ray.value.shared.save_shared`. Out:
completions with a `score`, and scores of given tokens. vLLM returns sampled tokens and their log-probabilities, nothing else of a
model. So the token after a block is the slot, an id that the policy never samples, and Q takes the place of its log-probability
(`vgs_ray.value.vllm_plugin`). A block of n tokens takes n + 1 steps of the engine, as many as there are tokens to forward.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import (
    Completion,
    SamplingWithGrammar,
    SamplingWithLogprobs,
    Score,
    check_scored,
    check_tokens,
    room_for,
)
from vgs_ray.engines.vllm import VllmPolicy
from vgs_ray.engines.vllm_arguments import engine_args, sampling_params
from vgs_ray.models.folder import local_folder
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.value.head import read_head
from vgs_ray.value.vllm_plugin import POLICY_ARCHITECTURE, SLOT_BASE, SLOT_SCALE, ForcedTokens, SlotProcessor
from vgs_ray.value.weights import read_config

SPAN = 64
"""Number of tokens of a given text that one sequence scores; a multiple of the block sizes of the KV cache."""
GREEDY = Sampling(temperature=0.0, top_p=1.0)


class VllmPolicyValue(VllmPolicy):
    """A policy with a value head; implements `interface.Policy` and `interface.Value`.

    Tokens, finish reasons and counts of `extend` are those of `VllmPolicy` for the same folder, as long as the policy gives the
    slot no probability. On a GPU the noise of a seed depends on vLLM's model runner: the tokens are those of the V1 runner
    (`VLLM_USE_V2_MODEL_RUNNER=0`).

    Args:
        model: folder or hub id of a policy with a value head.
        engine: settings of the engine.
        grammars: as in `VllmPolicy`.

    Raises:
        ValueError: the model has no value head, the head does not fit it, or it has no end-of-sequence token.
        Exception: from vLLM, if the engine cannot start.
    """

    def __init__(self, model: str, engine: Engine, grammars: bool = False) -> None:
        folder = local_folder(model)
        self._config = read_config(folder)
        head, _ = read_head(folder, self._config)
        self._slot = head.slot
        super().__init__(model, engine, grammars=grammars)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `VllmPolicy.extend`, with the score of the prefix and its new tokens, for which nothing is forwarded twice.

        A completion that fits a grammar has no score: the grammar would not allow the slot.
        """
        if isinstance(sampling, SamplingWithGrammar):
            return await super().extend(prefix, sampling, seed)
        room = room_for(prefix, sampling.max_tokens, self.max_model_len)
        check_tokens(prefix, self._vocabulary)
        check_tokens(sampling.stop_token_ids, self._vocabulary)
        ends = self._end_tokens.union(sampling.stop_token_ids)
        params = self._params(sampling, seed, ForcedTokens([*ends], room))
        read = partial(self._read_block, ends=ends, each=isinstance(sampling, SamplingWithLogprobs))
        return await self.loop.submit(prefix, params, read, self._interrupted)

    async def score(self, tokens: Tokens) -> Score:
        """P(correct) at the last token. Tokens of a cached prefix are not forwarded again.

        Raises:
            ValueError: `tokens` is empty or longer than `max_model_len`.
            UnknownToken: a token id is outside the vocabulary.
            EngineDied: the engine is gone.
        """
        check_scored(tokens, self.max_model_len, self._vocabulary)
        [score] = await self.loop.submit(tokens, self._params(GREEDY, 0, ForcedTokens(length=0)), self._read_scores)
        return score

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """P(correct) after each token.

        vLLM returns log-probabilities of new tokens only, so the text is generated again, with its tokens forced, in concurrent
        spans of `SPAN` tokens. Each token is forwarded twice, once in a prefix: cheaper than a call for each prefix.

        Raises:
            ValueError: `tokens` is empty or longer than `max_model_len`.
            UnknownToken: a token id is outside the vocabulary.
            EngineDied: the engine is gone.
        """
        check_scored(tokens, self.max_model_len, self._vocabulary)
        # The longest prefix comes first; the others are then in the cache.
        starts = range(0, len(tokens), SPAN)
        spans = await gather_or_cancel(self._score_span(tokens[: start + SPAN], start) for start in reversed(starts))
        return [score for span in reversed(spans) for score in span]

    async def _score_span(self, tokens: Tokens, start: int) -> list[Score]:
        """Scores after each token from index `start` on."""
        params = self._params(GREEDY, 0, ForcedTokens(text=tokens[start + 1 :]))
        return await self.loop.submit(tokens[: start + 1], params, self._read_scores)

    def _params(self, sampling: Sampling, seed: int, forced: ForcedTokens) -> Any:
        """Parameters of a sequence that ends with the slot, or of a span of text, whose tokens come with that of the slot."""
        span = forced.length is None
        return sampling_params(
            sampling,
            seed,
            max_tokens=1 + (len(forced.text) if forced.length is None else forced.length),
            logprobs=None if span else 0,
            logprob_token_ids=[self._slot] if span else None,
            stop_token_ids=[] if span else [self._slot],
            ignore_eos=True,
            extra_args=forced._asdict(),
        )

    def _engine_args(self, model: str, engine: Engine) -> dict[str, Any]:
        """Room for one token more, which is never forwarded, so it may exceed the model's positions."""
        return {
            **engine_args(model, replace(engine, max_model_len=engine.max_model_len + 1)),
            # Asynchronous scheduling starts a step before the tokens of the last one are known. The V1 runner does pass them to
            # logits processors in time, but this has not been run on a GPU, and a missed end token would not be noticed.
            "async_scheduling": False,
            "logits_processors": [f"{SlotProcessor.__module__}:{SlotProcessor.__name__}"],
            "hf_overrides": {
                "architectures": [POLICY_ARCHITECTURE],
                "value_slot": self._slot,
                "model_max_length": self._config.max_position_embeddings + 1,  # the limit that vLLM checks
            },
        }

    def _read_block(self, output: Any, ends: Collection[int], each: bool) -> Completion:
        made = output.outputs[0]
        *logprobs, slot = made.logprobs.logprobs
        tokens = tuple(made.token_ids[:-1])
        completion = self._completion(output, tokens, sum(logprobs), stopped=tokens[-1] in ends)
        return completion._replace(score=Score(_probability(slot)), logprobs=tuple(logprobs) if each else None)

    def _read_scores(self, output: Any) -> list[Score]:
        """The score after each token of a span, or at the end of the prompt; the slot is the last column."""
        made = output.outputs[0].logprobs
        slots = [made.logprobs[end - 1] for end in made.end_indices]
        cached = output.num_cached_tokens or 0
        first = len(output.prompt_token_ids) - cached
        self.usage.cached += cached
        self.usage.scored += first + len(slots) - 1
        return [Score(_probability(slot), (), 1 if index else first) for index, slot in enumerate(slots)]


def _probability(slot_logprob: float) -> float:
    """P(correct) = (Q + 1) / 2."""
    q = (slot_logprob - SLOT_BASE) / SLOT_SCALE
    return min(max((q + 1) / 2, 0.0), 1.0)
