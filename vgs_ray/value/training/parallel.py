"""Training on several workers: sharding of weights (FSDP2, HSDP), reduction of gradients, gathering of weights."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Layout


@dataclass(frozen=True)
class Worker:
    """This training process.

    Attributes:
        rank: rank among all workers.
        world: number of workers.
        device: device of the model.
        layout: layout of micro-batches.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    layout: Layout = "packed"

    def gather(self, value: Any) -> list[Any]:
        """The values that all workers pass, by rank; returned on every worker."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def prepare(model: ValueModel, config: Train, worker: Worker) -> None:
    """Freeze layers, checkpoint activations, compile and shard the model in place, as configured. One worker does not shard."""
    if config.trained_layers:
        for module in (model.model.embed_tokens, *model.model.layers[: -config.trained_layers]):
            module.requires_grad_(False)
    if config.activation_checkpointing:
        model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.compile:
        for block in model.model.layers:
            block.compile(dynamic=True)
    mesh = device_mesh(config.shard_size, worker)
    if mesh is not None:
        dtype = torch.bfloat16 if worker.device.type == "cuda" else None
        # Sum instead of mean: the loss is divided by the size of the whole batch already.
        shard(model, model.model.layers, mesh, dtype, config.reshard, divisor=1.0)


def shard(
    model: nn.Module,
    layers: Iterable[nn.Module],
    mesh: DeviceMesh,
    dtype: torch.dtype | None,
    reshard: bool,
    divisor: float,
) -> None:
    """Shard a model in place (FSDP2): each layer, and the rest together.

    Args:
        model: the model, whole.
        layers: its layers.
        mesh: see `device_mesh`.
        dtype: type of the gathered weights; None for that of the shards. Gradients are reduced in float32.
        reshard: free the gathered weights of a layer after its forward pass, and gather them again for the backward pass.
        divisor: the sum of the workers' gradients is divided by it.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in (*layers, model):
        # The rest has the first and the last weights, which the backward pass needs at once.
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard and module is not model)
    for sharded in _sharded(model):
        sharded.set_gradient_divide_factor(divisor)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo can only sum


def device_mesh(shard_size: int, worker: Worker) -> DeviceMesh | None:
    """A mesh that shards, or one that replicates and shards; None if nothing is sharded. All workers must call this together.

    Args:
        shard_size: see `vgs_ray.config.Train`.
        worker: this process.
    """
    # Set by Ray Train and torchrun. The ranks of a node follow each other.
    per_node = math.gcd(*worker.gather(int(os.environ.get("LOCAL_WORLD_SIZE", 0))))
    size = shard_count(shard_size, worker.world, per_node)
    if size == 1:
        return None
    if size == worker.world:
        return init_device_mesh(worker.device.type, (size,))
    shape = (worker.world // size, size)
    return init_device_mesh(worker.device.type, shape, mesh_dim_names=("replicate", "shard"))


def shard_count(shard_size: int, workers: int, per_node: int = 0) -> int:
    """Number of workers that share one copy of the model.

    Args:
        shard_size: see `vgs_ray.config.Train`.
        workers: number of workers.
        per_node: number of workers that each node has, or a common divisor of the numbers; 0 if unknown.
    """
    if not shard_size and per_node > 1:
        shard_size = per_node
    return math.gcd(shard_size, workers)  # gcd(0, n) is n


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def accumulate(model: ValueModel, last: bool, config: Train) -> None:
    """Prepare a micro-batch: only the last one of a step reduces gradients, and weights stay gathered until then."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
        model.set_reshard_after_backward(last or config.reshard)


def release(model: nn.Module) -> None:
    """Free the gathered weights after forward passes without a backward pass, so that the parameters are shards again."""
    for module in _sharded(model):
        module.reshard()


def sum_gradients(model: ValueModel, worker: Worker) -> None:
    """Sum the gradients of all workers, once per step, if the weights are replicated and not sharded."""
    if worker.world == 1 or isinstance(model, FSDPModule):
        return
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat)
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = part.view_as(weight)


def clip_gradients(model: ValueModel, clip_norm: float) -> Tensor:
    """Scale the gradient to a global norm of at most `clip_norm`; returns the norm before scaling, (), equal on all workers."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Unsharded weights in CPU memory. All workers must call this together."""
    return {
        # Cloned, because a gathered weight is a view of a larger buffer, which safetensors does not save.
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().cpu().clone()
        for name, weight in model.state_dict().items()
    }
