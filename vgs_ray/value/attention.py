"""Attention for packed sequences in plain torch: each sequence attends only to itself, without masks and padding.

It is registered in transformers as `varlen`. On a GPU it is torch's variable-length flash attention, in bfloat16. On a CPU it
is one causal SDPA call per sequence, which is faster for short rows than a mask over the whole row. transformers makes no mask
for an implementation that has no function for masks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available

from vgs_ray.value.packing import Layout

NAME = "varlen"


def choose_attention(choice: str, device: torch.device, dropout: float) -> str:
    """The attention implementation of transformers for `Train.attention`; `auto` takes the fastest one that is available.

    On a GPU, `varlen` has no dropout. With attention dropout and without flash-attn, `auto` is `sdpa` with a mask.
    """
    if choice != "auto":
        return choice
    if device.type == "cuda" and is_flash_attn_2_available():
        return "flash_attention_2"
    return "sdpa" if device.type == "cuda" and dropout else NAME


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
    from torch.nn.attention.varlen import varlen_attn

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
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None].to(query.dtype)


AttentionInterface.register(NAME, varlen_attention)
