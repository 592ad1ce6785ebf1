"""The value head in a policy's folder: `value_head/config.json` and its tensors.

A head is one linear layer on the last hidden states (SVPO), or the upper layers of a value model that shares all its other layers
with the policy (`train.share_policy`). torch and transformers are imported inside functions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgs_ray.models.folder import CONFIG, VALUE_HEAD, WEIGHTS, check_header, read_json
from vgs_ray.value.slot import check_slot

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT, BIAS = "weight", "bias"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class HeadConfig:
    """`value_head/config.json`.

    Attributes:
        slot: id of a token that the policy never has to sample; the engine returns the value in place of its log-probability.
        dropout: dropout before the head, in training.
        layers: number of decoder layers that belong to the head; 0 for a linear layer on the policy's last hidden states.
        num_labels: outputs of a head with layers, as in `vgs_ray.value.model.ValueModel`.
    """

    slot: int
    dropout: float = 0.1
    layers: int = 0
    num_labels: int = 1


def own_layers(folder: Path) -> int:
    """Number of decoder layers of the value head in a policy's folder; 0 without a head too.

    Raises:
        ValueError: `value_head/config.json` is damaged.
    """
    file = folder / VALUE_HEAD / CONFIG
    return int(read_json(file).get("layers", 0)) if file.is_file() else 0


def read_head(folder: Path, config: Any) -> tuple[HeadConfig, dict[str, Tensor]]:
    """The configuration and the weights of the value head in a policy's folder.

    Args:
        folder: of the policy.
        config: of the policy.

    Raises:
        ValueError: there is no head, a file is damaged, or the head does not fit the policy.
    """
    from safetensors.torch import load_file

    head = folder / VALUE_HEAD
    missing = [name for name in (CONFIG, WEIGHTS) if not (head / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} has no value head ({VALUE_HEAD}/{missing[0]} is missing): pass a folder that stage tune wrote, or stage "
            "train with train.share_policy, or a value model of its own"
        )
    settings = _read_settings(head / CONFIG, config.num_hidden_layers)
    check_slot(folder, config, settings.slot)
    check_header(head / WEIGHTS)
    weights = load_file(head / WEIGHTS)
    _check_shapes(head / WEIGHTS, {name: tuple(value.shape) for name, value in weights.items()}, config, settings)
    return settings, weights


def own_config(config: Any, layers: int) -> Any:
    """The configuration of a decoder with the last `layers` layers of a model.

    Args:
        config: of the whole model.
        layers: number of layers.
    """
    own = copy.deepcopy(config)
    own.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        own.layer_types = config.layer_types[-layers:]
    return own


def head_shapes(config: Any, head: HeadConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's tensors. Layers are numbered from 0.

    Args:
        config: of the policy.
        head: of the head.
    """
    size = config.hidden_size
    if not head.layers:
        return {WEIGHT: (1, size), BIAS: (1,)}
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        decoder = AutoModel.from_config(own_config(config, head.layers)).state_dict()
    shapes: dict[str, tuple[int, ...]] = {f"model.{name}": tuple(value.shape) for name, value in decoder.items()}
    del shapes[EMBEDDING]
    return shapes | {"score.0.weight": (size, size), "score.2.weight": (head.num_labels, size)}


def _read_settings(file: Path, most_layers: int) -> HeadConfig:
    found = {"slot": None, "dropout": 0.0, "layers": 0, "num_labels": 1} | read_json(file)
    names = [field.name for field in fields(HeadConfig)]
    for name in names:
        if not isinstance(found[name], int | float if name == "dropout" else int):
            raise ValueError(f"{file} has {name} {found[name]!r}; it must be a number: correct it")
    if not 0 <= found["layers"] <= most_layers:
        raise ValueError(
            f"{file} has layers {found['layers']}; it must be 0 to {most_layers}, the number of the policy's layers: correct it"
        )
    return HeadConfig(**{name: found[name] for name in names})


def _check_shapes(file: Path, shapes: dict[str, tuple[int, ...]], config: Any, head: HeadConfig) -> None:
    expected = head_shapes(config, head)
    if shapes == expected:
        return
    names = sorted(name for name in shapes | expected if shapes.get(name) != expected.get(name))[:4]
    raise ValueError(
        f"{file} has tensors { ({name: shapes.get(name) for name in names}) }; the head of this policy has "
        f"{ ({name: expected.get(name) for name in names}) }: it belongs to another model, or is damaged; copy the folder again"
    )
