"""A policy and a value model on transformers, behind `vgs_ray.engines.interface`, for machines without vLLM.

Concurrent calls share forward passes. No prefix is cached, and the counts of tokens and FLOPs include this. Tokens are drawn from
torch's generator, not from the seed of their call: only the same calls in the same order give the same tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.facts import end_token_set
from vgs_ray.engines.interface import Completion, Score, Usage, Value, room_for
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import bucket_by_length
from vgs_ray.value.score_sequences import padded

Item = TypeVar("Item")
Result = TypeVar("Result")
Generation = Literal["batched", "continuous"]
POLICY_PATIENCE, VALUE_PATIENCE = 20, 10
"""Turns of the event loop without a new call until a batch starts. Values come first, because searches wait for them."""
CACHE_SHARE = 0.3
"""Of the free memory, for the KV cache of continuous batching. The value model needs some too."""


class Batcher(Generic[Item, Result]):
    """Runs concurrent calls in batches, in the thread of the event loop.

    Args:
        run: computes a batch.
        rows: maximum number of calls in a batch.
        patience: turns of the event loop to wait for more calls.
        kind: only calls of one kind share a batch.
    """

    def __init__(
        self, run: Callable[[list[Item]], list[Result]], rows: int, patience: int, kind: Callable[[Item], Hashable]
    ) -> None:
        self._run, self._rows, self._patience, self._kind = run, rows, patience, kind
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            arrived = 0
            while arrived < len(self._waiting):
                arrived = len(self._waiting)
                for _ in range(self._patience):
                    await asyncio.sleep(0)
            kind = self._kind(self._waiting[0][0])
            batch = [each for each in self._waiting if self._kind(each[0]) == kind][: self._rows]
            taken = {id(future) for _, future in batch}
            self._waiting = [each for each in self._waiting if id(each[1]) not in taken]
            try:
                results = self._run([item for item, _ in batch])
            except Exception as error:  # of the model, such as too little memory; it is that of the calls
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)


class Call(NamedTuple):
    """A call of `extend`; `sampling.max_tokens` fits into the context."""

    prefix: Tokens
    sampling: Sampling


class TransformersPolicy:
    """A causal language model that extends prefixes; implements `interface.Policy`. Log-probabilities are not computed.

    Args:
        folder: of the model.
        device: where it runs, in float32 on a CPU and in bfloat16 on a GPU.
        max_model_len: maximum length of a sequence.
        rows: maximum number of sequences, or tokens with `continuous`, of a forward pass.
        generation: `batched` pads the prefixes of a batch, and a batch ends with its longest sequence. `continuous` is the
            continuous batching of transformers. Without flash-attn, it compares each query with the keys of all sequences.
        seed: of torch's generator.
    """

    def __init__(
        self, folder: str, device: torch.device, max_model_len: int, rows: int, generation: Generation, seed: int
    ) -> None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
        ids = model.generation_config.eos_token_id
        self.ends = end_token_set(folder, model.config.eos_token_id if ids is None else ids)
        model.generation_config = GenerationConfig()  # its sampling parameters are not those of the recipe
        self.model, self.usage, self.max_model_len, self.seed = model.to(device).eval(), Usage(), max_model_len, seed
        self._rows, self._ids = rows, itertools.count()
        self._manager: Any = None
        self._continuous = generation == "continuous"
        self._batcher = Batcher(
            self._generate, rows, POLICY_PATIENCE, lambda call: replace(call.sampling, max_tokens=1)
        )
        torch.manual_seed(seed)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample at most `sampling.max_tokens` tokens after `prefix`. `seed` is not used."""
        room = room_for(prefix, sampling.max_tokens, self.max_model_len)
        call = Call(prefix, replace(sampling, max_tokens=room))
        sampled = await (self._submit(call) if self._continuous else self._batcher.submit(call))
        completion = completion_of(sampled, call, self.ends)
        self.usage.generated += len(completion.tokens)
        self.usage.prefilled += completion.prefilled
        return completion

    def close(self) -> None:
        """Free the memory of the model."""
        if self._manager:
            self._manager.stop(block=True)
            self._manager.destroy()
        self.model = self._manager = None

    def _settings(self, sampling: Sampling) -> GenerationConfig:
        stops = sorted({*self.ends, *sampling.stop_token_ids})
        return GenerationConfig(
            do_sample=sampling.temperature > 0, temperature=sampling.temperature or 1.0, top_p=sampling.top_p,
            top_k=sampling.top_k, min_p=sampling.min_p or None, repetition_penalty=sampling.repetition_penalty,
            max_new_tokens=sampling.max_tokens, eos_token_id=stops, pad_token_id=stops[0],
        )  # fmt: skip

    @torch.inference_mode()
    def _generate(self, calls: list[Call]) -> list[list[int]]:
        """The tokens sampled for each call: those after a stop token, or after its limit, are still there."""
        most = max(call.sampling.max_tokens for call in calls)
        backwards = padded([np.array(call.prefix[::-1], np.int32) for call in calls])
        ids, mask = (part.flip(1).to(self.model.device) for part in backwards)
        settings = self._settings(replace(calls[0].sampling, max_tokens=most))
        sampled = self.model.generate(ids, attention_mask=mask, generation_config=settings)
        return sampled[:, ids.shape[1] :].tolist()

    async def _submit(self, call: Call) -> list[int]:
        """The tokens that continuous batching samples, in the thread of its manager."""
        name, future = f"call-{next(self._ids)}", asyncio.get_running_loop().create_future()
        manager = self._manager or self._start(call.sampling)
        manager.register_result_handler(name, future.set_result)
        stops = [*self.ends, *call.sampling.stop_token_ids]
        limit = call.sampling.max_tokens
        manager.add_request(list(call.prefix), request_id=name, max_new_tokens=limit, eos_token_id=stops)
        output = await future
        if output.error:
            raise RuntimeError(f"continuous batching failed ({output.error}): sample in batches")
        return output.generated_tokens

    def _start(self, sampling: Sampling) -> Any:
        from transformers import ContinuousBatchingConfig

        config = ContinuousBatchingConfig(
            max_batch_tokens=self._rows, max_memory_percent=CACHE_SHARE, use_cuda_graph=False, seed=self.seed
        )
        self._manager = self.model.init_continuous_batching(self._settings(sampling), config)
        self._manager.start()
        return self._manager


def completion_of(sampled: list[int], call: Call, ends: frozenset[int]) -> Completion:
    """What was sampled for a call, up to its first stop token or its limit."""
    tokens = tuple(sampled[: call.sampling.max_tokens])
    stops = ends.union(call.sampling.stop_token_ids)
    stop = next((at for at, token in enumerate(tokens) if token in stops), None)
    if stop is not None:
        tokens = tokens[: stop + 1]
    finished = stop is not None and tokens[-1] in ends
    return Completion(tokens, finished, "length" if stop is None else "stop", math.nan, len(call.prefix))


class TransformersValue(Value):
    """A value model that scores prefixes; implements `interface.Value`.

    Args:
        folder: of the value model.
        device: where it runs, in float32 on a CPU and in bfloat16 on a GPU.
        micro_tokens: tokens of a forward pass, with padding.
    """

    def __init__(self, folder: str, device: torch.device, micro_tokens: int) -> None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.usage, self._micro_tokens, self._device = Usage(), micro_tokens, device
        self._model = ValueModel.from_pretrained(folder, dtype).to(device)
        self._batcher = Batcher(self._score, micro_tokens, VALUE_PATIENCE, lambda tokens: None)

    async def score(self, tokens: Tokens) -> Score:
        """P(correct) at the last token of `tokens`."""
        value = await self._batcher.submit(tokens)
        self.usage.scored += len(tokens)
        return Score(value, scored=len(tokens))

    def _score(self, sequences: list[Tokens]) -> list[float]:
        values = [math.nan] * len(sequences)
        lengths = np.array([len(tokens) for tokens in sequences])
        for batch in bucket_by_length(lengths, self._micro_tokens):
            ids, mask = padded([np.array(sequences[at], np.int32) for at in batch])
            probs = self._model.success_probs(ids.to(self._device), mask.to(self._device))
            last = probs[torch.arange(len(batch)), torch.from_numpy(lengths[batch] - 1)].tolist()
            for at, value in zip(batch, last, strict=True):
                values[at] = value
        return values
