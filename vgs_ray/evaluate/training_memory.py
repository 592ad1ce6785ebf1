"""GPU memory that a training worker needs at least: what it keeps of the model, and the inputs of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgs_ray.config import Train
from vgs_ray.evaluate.engine_memory import GIB
from vgs_ray.search.flops import size_from_config

STATE_BYTES = 16
"""Of a weight that is trained: the weight, its gradient and the two moments of AdamW, in float32."""
WEIGHT_BYTES, GATHERED_BYTES = 4, 2
"""Of a weight in float32, and in bfloat16 for arithmetic."""


def training_gib(config: Mapping[str, Any], train: Train) -> float:
    """A lower bound of the memory in GiB of each GPU, if weights and layer inputs are in bfloat16.

    Without `shard_size`, the state is taken to be split over all workers. What a layer needs while it computes is not counted.

    Args:
        config: the values of the model's config.json.
        train: section of the recipe.
    """
    backbone = size_from_config({**config, "architectures": []})
    weights = backbone.params + config["vocab_size"] * config["hidden_size"]
    sharing = min(train.shard_size or train.workers, train.workers)
    kept = weights * (WEIGHT_BYTES if train.trained_layers else STATE_BYTES) / sharing
    gathered = 0 if train.reshard else weights * GATHERED_BYTES
    inputs = train.micro_tokens * config["num_hidden_layers"] * config["hidden_size"] * GATHERED_BYTES
    return (kept + gathered + inputs) / GIB
