"""What the forward pass keeps for the backward pass, chosen by the memory of a GPU.

In: a model, and the settings and the device of its training. Out: one of the values of `Train.activations`, applied to the model.
`vgs_ray.value.training.memory` has the estimate.
"""

from __future__ import annotations

import torch
import torch._functorch.config as functorch

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training import memory as training_memory
from vgs_ray.value.training.memory import Activations, Weights

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
    """`training_memory.training_bytes` of a model, whose frozen weights need no gradient."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    weights = Weights(trained, sum(weight.numel() for weight in model.parameters()) - trained)
    return training_memory.training_bytes(model.config.to_dict(), weights, config, shared, kind)
