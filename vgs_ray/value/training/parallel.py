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
from vgs_ray.config.train import shard_count
from vgs_ray.value.attention import activate_kernel
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Layout
from vgs_ray.value.training.activations import apply_activations, choose_activations


@dataclass(frozen=True)
class Worker:
    """This training process.

    Attributes:
        rank: rank among all workers.
        world: number of workers.
        device: device of the model.
        layout: layout of micro-batches.
        bf16: compute in bfloat16 on a CPU too, as a GPU always does.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    layout: Layout = "packed"
    bf16: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations in a forward pass; masters of the weights are float32."""
        return torch.bfloat16 if self.bf16 or self.device.type == "cuda" else torch.float32

    def gather(self, value: Any) -> list[Any]:
        """The values that all workers pass, by rank; returned on every worker."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def prepare(model: ValueModel, config: Train, worker: Worker) -> None:
    """Freeze layers, checkpoint activations, compile and shard the model in place, as configured.

    In bfloat16, a single worker shards too: the shards are float32, and the gathered weights bfloat16.
    """
    if config.trained_layers:
        for module in (model.model.embed_tokens, *model.model.layers[: -config.trained_layers]):
            module.requires_grad_(False)
    shared = sharing(config.shard_size, worker)
    apply_activations(model, choose_activations(model, config, worker.device, shared))
    activate_kernel(model.config._attn_implementation)
    if config.compile:
        for block in model.model.layers:
            block.compile(dynamic=True)
    if worker.world > 1 or worker.dtype == torch.bfloat16:
        mesh = device_mesh(shared, worker)
        # Sum instead of mean: the loss is divided by the size of the whole batch already.
        shard(model, model.model.layers, mesh, worker.dtype, config.reshard, divisor=1.0)


def shard(
    model: nn.Module,
    layers: Iterable[nn.Module],
    mesh: DeviceMesh,
    dtype: torch.dtype,
    reshard: bool,
    divisor: float,
) -> None:
    """Shard a model in place (FSDP2): each layer, and the rest together.

    Args:
        model: the model, whole.
        layers: its layers.
        mesh: see `device_mesh`.
        dtype: type of the gathered weights. Gradients are reduced in float32.
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


def device_mesh(shared: int, worker: Worker) -> DeviceMesh:
    """A mesh that shards, or one that replicates and shards. All workers must call this together.

    Args:
        shared: see `sharing`.
        worker: this process. A single one needs no process group; it gets one of its own.
    """
    if not dist.is_initialized():
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    if shared == worker.world:
        return init_device_mesh(worker.device.type, (shared,))
    shape = (worker.world // shared, shared)
    return init_device_mesh(worker.device.type, shape, mesh_dim_names=("replicate", "shard"))


def sharing(shard_size: int, worker: Worker) -> int:
    """Number of workers that share one copy of the model. All workers must call this together.

    Args:
        shard_size: see `vgs_ray.config.Train`.
        worker: this process.
    """
    # Set by Ray Train and torchrun. The ranks of a node follow each other.
    per_node = math.gcd(*worker.gather(int(os.environ.get("LOCAL_WORLD_SIZE", 0))))
    return shard_count(shard_size, worker.world, per_node)


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
