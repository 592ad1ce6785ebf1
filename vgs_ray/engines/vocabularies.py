"""Vocabularies of a policy and a value model: the token ids that both can read, and translation where they differ.

In: folders or hub ids of two models. Out: a number of token ids, or a `Value` that reads the policy's tokens as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Value
from vgs_ray.models import OWN_HEAD, RANDOM, model_path
from vgs_ray.models.folder import VOCABULARY, on_this_machine
from vgs_ray.prompts import load_tokenizer, text_of

if TYPE_CHECKING:
    from vgs_ray.engines.loop import EngineLoop
    from vgs_ray.engines.vllm import VllmValue


class Translation(NamedTuple):
    """From the policy's tokens to text, and from text to the value model's tokens."""

    to_text: Callable[[Tokens], str]
    to_tokens: Callable[[str], Tokens]


def find_translation(policy: str, scorer: str) -> Translation | None:
    """The translation between two tokenizers; None if their vocabularies are equal.

    Args:
        policy: folder, URL or hub id of the policy.
        scorer: folder, URL or hub id of the value model; without a tokenizer of its own it uses the policy's.
    """
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    policy, scorer = (on_this_machine(model, weights=False) for model in (policy, scorer))
    # For a folder without a tokenizer, such as that of a saved value model, transformers would make up an empty one.
    files = (cached_file(scorer, name, _raise_exceptions_for_missing_entries=False) for name in VOCABULARY)
    if not any(files):
        return None
    policy_tokenizer, scorer_tokenizer = load_tokenizer(policy), AutoTokenizer.from_pretrained(scorer)
    if scorer_tokenizer.get_vocab() == policy_tokenizer.get_vocab():
        return None
    return Translation(
        partial(text_of, policy_tokenizer),
        lambda text: tuple(scorer_tokenizer(text, add_special_tokens=False)["input_ids"]),
    )


def shared_vocabulary(policy: str, scorer: str) -> int:
    """Number of token ids, from 0 up, that the policy's tokenizer names and both models can read.

    A tokenizer may have more tokens than an embedding has rows, and an embedding more rows than the tokenizer has tokens. A value
    model that needs a translation, a random scorer, or the value head of the policy itself, sets no limit.
    """
    from transformers import AutoConfig

    policy = model_path(policy)
    models = [policy] if scorer in (RANDOM, OWN_HEAD) or find_translation(policy, scorer) else [policy, scorer]
    rows = [
        AutoConfig.from_pretrained(on_this_machine(model, weights=False)).get_text_config().vocab_size
        for model in models
    ]
    return int(min(1 + max(load_tokenizer(policy).get_vocab().values()), *rows))


class TranslatedValue(Value):
    """A `Value` with another vocabulary than the policy's: tokens are decoded to text and encoded by its own tokenizer.

    The policy's special tokens, such as the turns of its chat template, are left out: the value model does not know them.

    Args:
        value: reads tokens of its own vocabulary.
        translation: from the policy's tokens to those of `value`.
    """

    def __init__(self, value: VllmValue, translation: Translation) -> None:
        self.value, self.translation = value, translation
        self.usage = value.usage

    async def score(self, tokens: Tokens) -> Score:
        return await self.value.score(await asyncio.to_thread(self._translate, tokens))

    def _translate(self, tokens: Tokens) -> Tokens:
        return self.translation.to_tokens(self.translation.to_text(tokens))

    @property
    def loop(self) -> EngineLoop[Any]:
        """Of the wrapped engine."""
        return self.value.loop

    def close(self) -> None:
        """Stop the wrapped engine and free its memory."""
        self.value.close()
