"""Memory of a training worker: what it keeps of the model, and what the forward pass keeps for the backward pass. Without torch.

In: the values of a model's config.json, and the section train. Out: bytes, with weights and activations in bfloat16. Training
chooses `train.activations` by this estimate, and `pipelines.plan` the GPUs. `tests/engine/test_activations.py` compares it with
what autograd keeps. Symbols: H hidden size, A width of the queries, K width of the keys, I width of the MLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from vgs_ray.config import Train
from vgs_ray.search.model_size import size_from_config

Activations = Literal["keep", "budget", "checkpoint"]


class Weights(NamedTuple):
    """Numbers of weights that are trained and frozen."""

    trained: int
    frozen: int


def value_model_weights(config: Mapping[str, Any], trained_layers: int) -> Weights:
    """The weights of a value model on this backbone, without its head; all layers and the embedding are trained if
    `trained_layers` is 0."""
    backbone = size_from_config({**config, "architectures": []})
    whole = backbone.params + config["vocab_size"] * config["hidden_size"]
    if not trained_layers:
        return Weights(whole, 0)
    trained = backbone.params * min(trained_layers, backbone.layers) // backbone.layers
    return Weights(trained, whole - trained)


def training_bytes(config: Mapping[str, Any], weights: Weights, train: Train, shared: int, kind: Activations) -> float:
    """Estimate of the memory of one worker.

    A weight has 12 bytes of the master and of AdamW's state, divided among the workers that share a copy; 4 of its gradient,
    which is float32 and whole until the last micro-batch of a step; and 2 of the gathered weight, unless `reshard` frees it. A
    frozen one has 4 and 2. To the activations of a micro-batch come those of the layer in which the backward pass is.

    Args:
        config: the values of the model's config.json.
        weights: of the whole model.
        train: section of the recipe.
        shared: number of workers that share one copy of the model.
        kind: what the forward pass keeps.
    """
    gathered = 0 if train.reshard else 2
    kept = weights.trained * (12 / shared + 4 + gathered) + weights.frozen * (4 / shared + gathered)
    return kept + train.micro_tokens * (token_bytes(config, train, kind) + layer_bytes(config, "keep", compiled=False))


def token_bytes(config: Mapping[str, Any], train: Train, kind: Activations) -> int:
    """Bytes that the forward pass keeps for each token: those of the trained layers, the last norm and the head."""
    layers = min(train.trained_layers or config["num_hidden_layers"], config["num_hidden_layers"])
    return layers * layer_bytes(config, kind, train.compile) + 12 * config["hidden_size"]


def layer_bytes(config: Mapping[str, Any], kind: Activations, compiled: bool) -> int:
    """Bytes that a layer keeps for each token.

    A layer that is not compiled keeps the inputs of both norms in float32 (4 H each), what they normalize and return (2 H each),
    the queries, keys, values and outputs of attention (4 A and 4 K), and four arrays of the MLP (2 I each). A compiled one
    computes cheap arrays again, such as one of the MLP; with a budget, two more of them.
    """
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    attention = 4 * head * (heads + config.get("num_key_value_heads", heads))
    if kind == "checkpoint":
        return 2 * hidden
    if kind == "budget":
        return 10 * hidden + attention + 2 * inner
    return (12 * hidden + attention + 6 * inner) if compiled else (18 * hidden + attention + 8 * inner)
