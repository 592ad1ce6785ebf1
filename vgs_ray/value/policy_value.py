"""Policy and value in one model: a causal language model and a value head on its last hidden states (SVPO, arXiv 2406.10858).

In: a causal language model, or a folder written here. Out: Q in [-1, 1] at each token, and a folder that other software loads
as the plain policy: the head lies in its subfolder `value_head`. `vgs_ray.engines.build_engines` serves such a folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgs_ray.models.folder import CONFIG, VALUE_HEAD, WEIGHTS, local_folder
from vgs_ray.value.head import BIAS, WEIGHT, HeadConfig, read_head
from vgs_ray.value.slot import check_slot, choose_slot
from vgs_ray.value.weights import read_config


class PolicyValueModel(nn.Module):
    """A causal language model and a value head: dropout, one linear map and tanh on the last hidden state.

    Q is 2 P(correct) - 1.

    Args:
        policy: a causal language model of transformers.
        head_config: configuration of the head.
    """

    def __init__(self, policy: Any, head_config: HeadConfig) -> None:
        super().__init__()
        self.policy = policy
        self.config = policy.config
        self.head_config = head_config
        # In float32 whatever the policy's type: rounding Q to bfloat16 would make siblings tie.
        linear = nn.Linear(self.config.hidden_size, 1, dtype=torch.float32)
        self.head = nn.Sequential(nn.Dropout(head_config.dropout), linear)

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, dtype: torch.dtype = torch.float32) -> PolicyValueModel:
        """Load a policy that has a value head (folder, URL or hub id).

        Raises:
            ValueError: there is no head, it does not fit the policy, or the architecture is not supported.
        """
        folder = local_folder(path_or_id)
        config = read_config(folder)
        head_config, weights = read_head(folder, config)
        if head_config.layers:
            raise ValueError(
                f"{folder} has a value head with {head_config.layers} layers of its own: load it with ValueModel.from_pretrained"
            )
        model = cls(_load_policy(folder, dtype), head_config)
        model.linear.load_state_dict(weights)
        return model.eval()

    @classmethod
    def from_policy(
        cls,
        path_or_id: str | Path,
        dropout: float = 0.1,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        slot: int | None = None,
    ) -> PolicyValueModel:
        """Add a new head to a causal language model (folder, URL or hub id), initialized from `seed`.

        Args:
            path_or_id: folder, URL or hub id of the policy.
            dropout: dropout before the head.
            seed: of the head's weights.
            dtype: type of the policy's weights.
            slot: see `HeadConfig`; by default `choose_slot` finds one.

        Raises:
            ValueError: the architecture is not supported, or no token can be the slot.
        """
        folder = local_folder(path_or_id)
        config = read_config(folder)
        slot = choose_slot(folder, config) if slot is None else slot
        check_slot(folder, config, slot)
        model = cls(_load_policy(folder, dtype), HeadConfig(slot, dropout))
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(model.linear.weight, std=config.initializer_range, generator=generator)
        nn.init.zeros_(model.linear.bias)
        return model

    @property
    def linear(self) -> nn.Linear:
        """The layer of the head that has weights."""
        return cast(nn.Linear, self.head[1])

    def q_values(self, hidden: Tensor) -> Tensor:
        """Q in [-1, 1], float32 (...), from last hidden states (..., hidden)."""
        return self.head(hidden.to(self.linear.weight.dtype)).squeeze(-1).float().tanh()

    def values(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Q after each token, float32 (batch, length).

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), 0 on padding.
        """
        output = self.policy.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return self.q_values(output.last_hidden_state)

    def save_pretrained(self, path: str | Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the policy as a plain causal language model, and the head into the subfolder `value_head`.

        The tokenizer is not part of the model: copy its files too.

        Args:
            path: folder, created if it is missing.
            state_dict: unsharded weights under the names of this module, if the module itself holds shards.
        """
        from safetensors.torch import save_file

        whole = state_dict or self.state_dict()
        policy = {name.removeprefix("policy."): value for name, value in whole.items() if name.startswith("policy.")}
        self.policy.save_pretrained(path, state_dict=policy)
        folder = Path(path) / VALUE_HEAD
        folder.mkdir(exist_ok=True)
        head = {name: whole[f"head.1.{name}"].detach().to("cpu", torch.float32) for name in (WEIGHT, BIAS)}
        save_file({name: value.contiguous() for name, value in head.items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(asdict(self.head_config), indent=2) + "\n")


def _load_policy(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
