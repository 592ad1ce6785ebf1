"""A value model that shares all but its last layers with a policy, so that one forward pass gives samples and values.

In: a `ValueModel` of which only the last layers were trained, started from the policy (`train.share_policy`). Out: the policy's
own files, with those layers in the subfolder `value_head`. Other software loads such a folder as the plain policy,
`ValueModel.from_pretrained` as the whole value model, and `vgs_ray.engines.build_engines` as both in one engine.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgs_ray.data.files import atomic_folder
from vgs_ray.data.storage import AnyPath
from vgs_ray.models import model_path
from vgs_ray.models.folder import CONFIG, VALUE_HEAD, WEIGHTS, local_folder
from vgs_ray.value.head import EMBEDDING, HeadConfig, own_layers, read_head
from vgs_ray.value.publish import copy_tokenizer
from vgs_ray.value.slot import choose_slot
from vgs_ray.value.weights import read_config, read_weights

if TYPE_CHECKING:
    from torch import Tensor

    from vgs_ray.config import Train

POLICY_FILES = (CONFIG, "generation_config.json", "*.safetensors", "*.bin", "*.index.json")
LAYER = re.compile(r"(model\.layers\.)(\d+)(\..+)")


def new_head(config: Train) -> HeadConfig:
    """The head that training adds to the policy `config.init`.

    Raises:
        ValueError: the policy has fewer layers than `config.trained_layers`, its architecture is not supported, or no token can
            carry the value.
    """
    folder = local_folder(model_path(config.init))
    policy, layers = read_config(folder), config.trained_layers
    if layers > policy.num_hidden_layers:
        raise ValueError(
            f"train.trained_layers is {layers}, and {config.init} has {policy.num_hidden_layers} layers; with train.share_policy "
            "these are the layers that values do not share with the policy: lower --train.trained-layers"
        )
    return HeadConfig(choose_slot(folder, policy), config.dropout, layers, config.num_labels)


def save_shared(weights: dict[str, Tensor], head: HeadConfig, init: str, card: str, folder: AnyPath) -> None:
    """Write the policy's files as they are, and the value model's own layers beside them. The folder is complete or absent.

    Args:
        weights: unsharded weights of the value model.
        head: see `new_head`.
        init: the policy.
        card: text of README.md.
        folder: folder to write; replaced if it exists.
    """
    from safetensors.torch import save_file

    policy = local_folder(model_path(init))
    with atomic_folder(folder) as temporary:
        for file in policy.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in POLICY_FILES):
                shutil.copy(file, temporary / file.name)
        copy_tokenizer(init, temporary)
        (temporary / "README.md").write_text(card)
        (temporary / VALUE_HEAD).mkdir()
        (temporary / VALUE_HEAD / CONFIG).write_text(json.dumps(asdict(head), indent=2) + "\n")
        shared = read_config(policy).num_hidden_layers - head.layers
        save_file(own_weights(weights, shared), temporary / VALUE_HEAD / WEIGHTS)


def own_weights(weights: dict[str, Tensor], shared: int) -> dict[str, Tensor]:
    """The weights above the first `shared` layers, in float32, with layers numbered from 0."""
    own = {name: value for name, value in weights.items() if not _is_shared(name, shared)}
    return {_moved(name, -shared): value.detach().to("cpu").float().contiguous() for name, value in own.items()}


def read_value_model(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of the whole value model in a folder: of a value model, or of a policy that shares its layers.

    Raises:
        ValueError: a file is missing or damaged, or the head does not fit the policy.
    """
    config, weights = read_config(folder), read_weights(folder)
    if not own_layers(folder):
        return config, weights
    head, own = read_head(folder, config)
    config.num_labels, config.classifier_dropout = head.num_labels, head.dropout
    shared = config.num_hidden_layers - head.layers
    below = {name: value for name, value in weights.items() if _is_shared(name, shared)}
    return config, below | {_moved(name, shared): value for name, value in own.items()}


def _is_shared(name: str, shared: int) -> bool:
    layer = LAYER.fullmatch(name)
    return int(layer[2]) < shared if layer else name == EMBEDDING


def _moved(name: str, by: int) -> str:
    """The name of a weight with the number of its layer changed."""
    return LAYER.sub(lambda found: f"{found[1]}{int(found[2]) + by}{found[3]}", name)
