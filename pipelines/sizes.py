"""Sizes of the two models of a search, from which its FLOPs are counted. In: folders or hub ids. Out: `ModelSizes`."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from vgs_ray.engines.baselines import RANDOM
from vgs_ray.evaluate.flops import NO_MODEL, ModelSizes, model_size
from vgs_ray.sandbox import model_path


def model_sizes(policy: str, scorer: str) -> ModelSizes:
    """Of a policy, as a recipe names it, and of a scorer.

    Raises:
        ValueError: one of them is no Qwen2, Qwen3 or Llama model.
    """
    return ModelSizes(model_size(_config_of(policy)), NO_MODEL if scorer == RANDOM else model_size(_config_of(scorer)))


def _config_of(model: str) -> str:
    """Where a model's config.json lies; fetched when the model is a hub id."""
    path = model_path(model)
    return path if Path(path).is_dir() else hf_hub_download(path, "config.json")
