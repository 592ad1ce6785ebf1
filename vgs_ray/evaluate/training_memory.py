"""GPU memory that a training worker needs at least: what it keeps of the model, and the inputs of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgs_ray.config import Train
from vgs_ray.evaluate.engine_memory import GIB
from vgs_ray.search.flops import size_from_config

STATE_BYTES, GRADIENT_BYTES, GATHERED_BYTES = 12, 4, 2
"""Of a weight that is trained: the weight and the two moments of AdamW in float32, its gradient, and its copy in bfloat16."""
FROZEN_BYTES = 4


def training_gib(config: Mapping[str, Any], train: Train) -> float:
    """A lower bound of the memory in GiB of each GPU, if weights and layer inputs are in bfloat16.

    Without `shard_size`, the state is taken to be split over all workers. With `trained_layers`, all weights count as frozen. Of
    the activations, only the inputs of the trained layers are counted.

    Args:
        config: the values of the model's config.json.
        train: section of the recipe.
    """
    backbone = size_from_config({**config, "architectures": []})
    weights = backbone.params + config["vocab_size"] * config["hidden_size"]
    sharing = min(train.shard_size or train.workers, train.workers)
    if train.trained_layers:
        kept = FROZEN_BYTES / sharing
    elif sharing == 1 or train.reshard:
        kept = (STATE_BYTES + GRADIENT_BYTES) / sharing
    else:
        kept = STATE_BYTES / sharing + GRADIENT_BYTES + GATHERED_BYTES
    layers = min(train.trained_layers or backbone.layers, backbone.layers)
    return (weights * kept + train.micro_tokens * layers * config["hidden_size"] * GATHERED_BYTES) / GIB
