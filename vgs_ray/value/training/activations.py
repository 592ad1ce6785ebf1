"""What the forward pass keeps for the backward pass, and whether it fits the memory of a GPU.

In: a model, and the settings and the device of its training. Out: one of the values of `Train.activations`, applied to the model.

The estimates are numbers of bytes with bfloat16 activations. `tests/engine/test_activations.py` compares them with what autograd
keeps. Symbols: H hidden size, A width of the queries, K width of the keys, I width of the MLP.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch._functorch.config as functorch

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel

Activations = Literal["keep", "budget", "checkpoint"]
BUDGET = 0.5
"""Share of the activations of a compiled layer that `budget` keeps."""
MEMORY_SHARE = 0.9
"""Share of a GPU's memory that training may fill; the rest is for CUDA, NCCL and fragmentation."""


def choose_activations(model: ValueModel, config: Train, device: torch.device, shared: int) -> Activations:
    """`config.activations`; for `auto`, the first that fits the GPU, and `keep` on a CPU.

    Args:
        model: whole.
        config: settings; `auto` considers `budget` only with `compile`.
        device: device of the model.
        shared: number of workers that share one copy of the model.
    """
    if config.activations != "auto":
        return config.activations
    if device.type == "cpu":
        return "keep"
    memory = MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    return first_that_fits(model, config, shared, memory)


def first_that_fits(model: ValueModel, config: Train, shared: int, memory: float) -> Activations:
    """The first of `keep`, `budget` (if compiled) and `checkpoint` that needs at most `memory` bytes; or the last."""
    kinds: tuple[Activations, ...] = ("keep", "budget") if config.compile else ("keep",)
    return next((kind for kind in kinds if training_bytes(model, config, shared, kind) <= memory), "checkpoint")


def apply_activations(model: ValueModel, kind: Activations) -> None:
    """Make the layers keep what `kind` says; call it before they are compiled."""
    if kind == "checkpoint":
        model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    functorch.activation_memory_budget = BUDGET if kind == "budget" else 1.0  # read when a layer is first called


def training_bytes(model: ValueModel, config: Train, shared: int, kind: Activations) -> float:
    """Estimate of the memory of one worker.

    A weight has 12 bytes of the master and of AdamW's state, divided among the workers that share a copy, and 6 bytes of the
    gathered weight and of its gradient, which is float32 until it is reduced. A frozen one has 4 and 2. To the activations of a
    micro-batch come those of the layer in which the backward pass is.
    """
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in model.parameters()) - trained
    activations = token_bytes(model.config, config, kind) + layer_bytes(model.config, "keep", compiled=False)
    return trained * (12 / shared + 6) + frozen * (4 / shared + 2) + config.micro_tokens * activations


def token_bytes(model_config: Any, config: Train, kind: Activations) -> int:
    """Bytes that the forward pass keeps for each token: those of the trained layers, the last norm and the head."""
    layers = min(config.trained_layers or model_config.num_hidden_layers, model_config.num_hidden_layers)
    return layers * layer_bytes(model_config, kind, config.compile) + 12 * model_config.hidden_size


def layer_bytes(config: Any, kind: Activations, compiled: bool) -> int:
    """Bytes that a layer keeps for each token.

    A layer that is not compiled keeps the inputs of both norms in float32 (4 H each), what they normalize and return (2 H each),
    the queries, keys, values and outputs of attention (4 A and 4 K), and four arrays of the MLP (2 I each). A compiled one
    computes cheap arrays again, such as one of the MLP; with a budget, two more of them.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    attention = 4 * head * (config.num_attention_heads + config.num_key_value_heads)
    if kind == "checkpoint":
        return 2 * hidden
    if kind == "budget":
        return 10 * hidden + attention + 2 * inner
    return (12 * hidden + attention + 6 * inner) if compiled else (18 * hidden + attention + 8 * inner)
