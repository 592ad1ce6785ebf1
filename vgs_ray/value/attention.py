"""Attention for packed sequences in plain torch: each sequence attends only to itself, without masks and padding.

It is registered in transformers as `varlen`. On a GPU it is torch's variable-length flash attention, in bfloat16. On a CPU it
is one causal SDPA call per sequence, which is faster for short rows than a mask over the whole row. transformers makes no mask
for an implementation that has no function for masks.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available

from vgs_ray.value.packing import Layout

NAME = "varlen"


class Kernel(NamedTuple):
    """A kernel that replaces torch's own flash attention: its name in torch, its Python module, and the GPUs that have it."""

    implementation: str
    module: str
    capabilities: tuple[int, ...]


KERNELS = {
    "varlen_fa3": Kernel("FA3", "flash_attn_interface", (9,)),
    "varlen_fa4": Kernel("FA4", "flash_attn.cute", (9, 10)),
}
"""By the name of the implementation, the fastest first. They have no dropout."""
MASKED, MOST_MASKED = ("sdpa", "eager"), 4096
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
"""torch 2.11 accepts fewer key heads than query heads without this argument, and does not have it."""


def choose_attention(choice: str, device: torch.device, dropout: float, tokens: int) -> str:
    """The attention implementation of transformers for `Train.attention`; `auto` takes the fastest one that is available.

    Args:
        choice: see `vgs_ray.config.Train`.
        device: device of the model.
        dropout: dropout in attention. On a GPU, flash-attn 2 has it, and else only attention with a mask.
        tokens: length of a packed row.

    Raises:
        ValueError: the row is too long for a mask over all pairs of its tokens.
    """
    name = _fastest(device, dropout) if choice == "auto" else choice
    if device.type == "cuda" and name in MASKED and tokens > MOST_MASKED:
        raise ValueError(
            f"attention {name!r} (train.attention={choice}, train.attention_dropout={dropout}) needs a mask of {tokens:,} x "
            f"{tokens:,} tokens (train.micro_tokens); on a GPU, rows with a mask may have at most {MOST_MASKED:,}: "
            "pass --train.attention auto and --train.attention-dropout 0, or install flash-attn 2 (docs/training.md)"
        )
    return name


def _fastest(device: torch.device, dropout: float) -> str:
    if device.type == "cpu":
        return NAME
    if dropout:
        return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    return next((name for name in KERNELS if _is_supported(name, device)), NAME)


def _is_supported(name: str, device: torch.device) -> bool:
    kernel = KERNELS[name]
    return _is_installed(kernel.module) and torch.cuda.get_device_capability(device)[0] in kernel.capabilities


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def activate_kernel(attention: str) -> None:
    """Let torch's variable-length attention run the kernel of this implementation, or torch's own, in this process.

    Raises:
        ValueError: the kernel's package is missing or does not fit.
    """
    from torch.nn.attention import (
        activate_flash_attention_impl,
        current_flash_attention_impl,
        restore_flash_attention_impl,
    )

    if attention in KERNELS:
        try:
            activate_flash_attention_impl(KERNELS[attention].implementation)
        except (ImportError, RuntimeError, OSError) as error:
            raise ValueError(
                f"train.attention is {attention!r}, and module {KERNELS[attention].module} can't be used ({error}): install its "
                "package for this version of torch, or pass --train.attention varlen"
            ) from error
    elif current_flash_attention_impl():
        restore_flash_attention_impl()


def choose_layout(attention: str, device: torch.device) -> Layout:
    """`packed`, except on a CPU with attention that would need a mask over the whole packed row, which is slow there."""
    return "bucketed" if device.type == "cpu" and attention in ("sdpa", "eager") else "packed"


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row; within whole rows if there are no bounds (padding is on the right).

    Args:
        query, key, value: (rows, heads, length, head size); keys and values may have fewer heads.
        cu_seq_lens_q, max_length_q: bounds of the sequences of a packed row (`vgs_ray.value.packing.sequence_bounds`), and a
            length that none exceeds.

    Returns:
        (rows, length, heads, head size), and None for the attention weights.

    Raises:
        ValueError: dropout for packed sequences on a GPU.
    """
    if cu_seq_lens_q is None:
        return _causal(query, key, value, scaling, dropout).transpose(1, 2), None
    if query.is_cuda:
        if dropout:
            raise ValueError(
                f"dropout is {dropout}, and attention 'varlen' has no dropout on a GPU: install flash-attn, or set "
                "train.attention_dropout to 0"
            )
        return _flash(query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    return _by_sequence(query, key, value, scaling, dropout, cu_seq_lens_q), None


@torch.compiler.disable  # a compiled block would be compiled again for each number of sequences
def _by_sequence(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float, cumulative: Tensor
) -> Tensor:
    sizes = [size for size in cumulative.diff().tolist() if size]
    queries, keys, values = (tensor.split(sizes, 2) for tensor in (query, key, value))
    parts = [_causal(q, k, v, scaling, dropout) for q, k, v in zip(queries, keys, values, strict=True)]
    return torch.cat(parts, 2).transpose(1, 2)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=query.shape[1] != key.shape[1]
    )


def _flash(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, cumulative: Tensor, longest: int
) -> Tensor:
    q, k, v = (tensor[0].transpose(0, 1).to(torch.bfloat16) for tensor in (query, key, value))
    out = varlen_attn(
        q,
        k,
        v,
        cumulative,
        cumulative,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        **_GROUPED,
    )
    assert isinstance(out, Tensor)
    return out[None].to(query.dtype)


for _name in (NAME, *KERNELS):
    AttentionInterface.register(_name, varlen_attention)
