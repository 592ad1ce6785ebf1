"""A tokenizer whose tokens are bytes, with any chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def letters(template: str, tags: bool = True) -> PreTrainedTokenizerFast:
    """A byte tokenizer with or without tokens for the thought tags."""
    inner = Tokenizer(models.BPE({char: at for at, char in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>") if tags])
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template)
