"""Sizes of the two models of a search: what its FLOPs are counted from, and which token ids both can read.

In: folders or hub ids. Out: `ModelSizes`, and a number of tokens.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from vgs_ray.models import RANDOM, model_path
from vgs_ray.prompts import load_tokenizer, translation
from vgs_ray.search.flops import NO_MODEL, ModelSizes, model_size


def model_sizes(policy: str, scorer: str) -> ModelSizes:
    """Of a policy, as a recipe names it, and of a scorer.

    Raises:
        ValueError: one of them is no Qwen2, Qwen3 or Llama model.
    """
    return ModelSizes(model_size(_config_of(policy)), NO_MODEL if scorer == RANDOM else model_size(_config_of(scorer)))


def vocabulary(policy: str, scorer: str) -> int:
    """Token ids, from 0 up, that the policy's tokenizer names and both models can read.

    A tokenizer may have added tokens above the rows of an embedding, and an embedding more rows than there are tokens. A scorer
    that reads the text in tokens of its own, or none at all, sets no limit.
    """
    from transformers import AutoConfig

    policy = model_path(policy)
    models = [policy] if scorer == RANDOM or translation(policy, scorer) else [policy, scorer]
    rows = [AutoConfig.from_pretrained(model).get_text_config().vocab_size for model in models]
    return int(min(1 + max(load_tokenizer(policy).get_vocab().values()), *rows))


def _config_of(model: str) -> str:
    """Where a model's config.json lies; fetched when the model is a hub id."""
    path = model_path(model)
    return path if Path(path).is_dir() else hf_hub_download(path, "config.json")
