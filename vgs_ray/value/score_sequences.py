"""Values at every token of finished sequences, with transformers.

In: the folder of a value model, or of a policy with a value head; token ids. Out: P(correct) after each token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgs_ray.models.folder import VALUE_HEAD
from vgs_ray.value.head import own_layers
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import bucket_by_length
from vgs_ray.value.policy_value import PolicyValueModel

Score = Callable[[Tensor, Tensor], Tensor]


def token_probs(
    folder: Path, sequences: Sequence[NDArray[np.int32]], device: torch.device, micro_tokens: int = 16_384
) -> list[NDArray[np.float32]]:
    """P(correct) after each token of each sequence.

    Args:
        folder: of a value model, or of a policy with a value head, whose Q in [-1, 1] is mapped to [0, 1].
        sequences: token ids, each an array of shape (length,).
        device: where the model runs, in float32 on a CPU and in bfloat16 on a GPU.
        micro_tokens: tokens in one forward pass with their padding, unless a single sequence is longer.

    Returns:
        An array of shape (length,) for each sequence, in their order.

    Raises:
        ValueError: the model can't be loaded, or a token is not in its vocabulary.
    """
    score, vocabulary = _load(folder, device)
    highest = max(int(tokens.max()) for tokens in sequences)
    if highest >= vocabulary:
        raise ValueError(
            f"{folder} has a vocabulary of {vocabulary} tokens, and the answers have token {highest}; a value model reads the "
            "tokens of its own policy: leave this run out"
        )
    values: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    for batch in bucket_by_length(np.array([len(tokens) for tokens in sequences]), micro_tokens):
        ids, mask = padded([sequences[index] for index in batch])
        probs = score(ids.to(device), mask.to(device)).cpu().numpy()
        for index, row in zip(batch, probs, strict=True):
            values[index] = row[: len(sequences[index])]
    return values


def _load(folder: Path, device: torch.device) -> tuple[Score, int]:
    """A function from (token ids, mask) to P(correct), and the size of the vocabulary."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    if own_layers(folder) or not (folder / VALUE_HEAD).is_dir():
        value_model = ValueModel.from_pretrained(folder, dtype).to(device)
        return value_model.success_probs, value_model.config.vocab_size
    model = PolicyValueModel.from_pretrained(folder, dtype).to(device)

    @torch.no_grad()
    def score(ids: Tensor, mask: Tensor) -> Tensor:
        return (model.values(ids, mask) + 1) / 2

    return score, model.config.vocab_size


def padded(sequences: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (batch, length), padded on the right."""
    size = max(map(len, sequences))
    ids, mask = torch.zeros(len(sequences), size, dtype=torch.long), torch.zeros(len(sequences), size, dtype=torch.long)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = torch.from_numpy(np.asarray(tokens, np.int64))
        mask[row, : len(tokens)] = 1
    return ids, mask
