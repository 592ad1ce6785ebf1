"""Policies with a value head, served by one engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny import TINY_ENGINE

from vgs_ray.config import Sampling, Train
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines
from vgs_ray.models import OWN_HEAD
from vgs_ray.value.head import HeadConfig
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.shared import new_head, save_shared

WARM = Sampling(temperature=1.0, top_p=1.0, max_tokens=60)
SMALL_CACHE = replace(TINY_ENGINE, kv_cache_gib=0.003)
"""Room for 1,258 tokens of the sandbox's policy, so that sequences of a crowd are preempted and computed again."""


def add_head(policy: str | Path, folder: Path, std: float, **how: Any) -> PolicyValueModel:
    """Save the policy with a random head whose values are far from constant."""
    model = PolicyValueModel.from_policy(policy, **how).eval()
    torch.nn.init.normal_(model.linear.weight, std=std, generator=torch.Generator().manual_seed(1))
    torch.nn.init.constant_(model.linear.bias, 0.1)
    model.save_pretrained(folder)
    return model


def add_layers(
    policy: str | Path, folder: Path, layers: int, slot: int | None = None, num_labels: int = 3
) -> ValueModel:
    """Save the policy with the last layers of a value model that shares all other layers with it."""
    model, draw = ValueModel.from_backbone(policy, num_labels, seed=1).eval(), torch.Generator().manual_seed(1)
    for module in (*model.model.layers[-layers:], model.model.norm, model.score):
        for weight in module.parameters():
            weight.data += 0.1 * torch.randn(weight.shape, generator=draw)
    config = Train(init=str(policy), trained_layers=layers, share_policy=True)
    head = new_head(config) if slot is None else HeadConfig(slot, config.dropout, layers, num_labels)
    save_shared(model.state_dict(), head, str(policy), "", folder)
    return model


class OnePass(NamedTuple):
    engine: Any
    folder: str
    model: PolicyValueModel | ValueModel

    def values(self, tokens: Tokens) -> list[float]:
        """P(correct) after each token, by transformers."""
        with torch.no_grad():
            if isinstance(self.model, ValueModel):
                return self.model.success_probs(torch.tensor([tokens]))[0].tolist()
            return ((self.model.values(torch.tensor([tokens]))[0] + 1) / 2).tolist()


def serve(folder: Path, model: PolicyValueModel | ValueModel) -> Iterator[OnePass]:
    engines = build_engines(str(folder), OWN_HEAD, SMALL_CACHE, SMALL_CACHE)
    assert engines.policy is engines.value
    yield OnePass(engines.policy, str(folder), model)
    engines.close()
