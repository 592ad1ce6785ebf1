"""Configuration and tensors of a value model's folder.

In: a folder, see `vgs_ray.models.folder`. Out: tensors by name, or a `ValueError` that names the fault.
torch, transformers and what reads object stores are imported inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL_TYPES = ("qwen2", "qwen3", "llama")


def read_config(folder: Path) -> Any:
    """The transformers configuration of a folder.

    Raises:
        ValueError: config.json is missing, can't be read, or has a `model_type` that is not supported.
    """
    from transformers import AutoConfig

    from vgs_ray.models.folder import model_type

    if (name := model_type(folder)) not in MODEL_TYPES:
        raise ValueError(
            f"{folder} has model_type {name!r}; a value model must have one of {', '.join(MODEL_TYPES)}: start from such a "
            "model, or add the type to vgs_ray.value.weights and vgs_ray.value.vllm_plugin"
        )
    return AutoConfig.from_pretrained(folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name, on the CPU.

    Raises:
        ValueError: a file is missing or damaged, or the weights are PyTorch pickles.
    """
    from safetensors.torch import load_file

    from vgs_ray.models.folder import check_header, weight_files

    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        check_header(file)
        weights |= load_file(str(file))
    return weights


def computed_modules(model: nn.Module) -> set[str]:
    """Names of the modules that load nothing from a checkpoint, because all their state is non-persistent buffers.

    Older releases of transformers saved such buffers, for example the rotary frequencies of each layer
    (`layers.0.self_attn.rotary_emb.inv_freq`). Newer releases compute them from the configuration, once for all layers.

    Args:
        model: a model of transformers or vLLM.

    Returns:
        The last part of each module's name, `rotary_emb` in the example.
    """
    return {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if next(module.buffers(recurse=False), None) is not None and not module.state_dict()
    }


def is_computed(name: str, modules: set[str]) -> bool:
    """Whether a tensor of a checkpoint belongs to one of `computed_modules`, at any place in the model."""
    return name.rpartition(".")[0].rpartition(".")[2] in modules


def check_shapes(folder: Path, expected: dict[str, tuple[int, ...]], stored: dict[str, Tensor]) -> None:
    """Check the names and shapes of weights, so that a causal language model is not mistaken for a value model.

    Raises:
        ValueError: a weight is missing, has another shape, or is not part of a value model.
    """
    wrong = [
        f"{name} is {tuple(stored[name].shape) if name in stored else 'missing'}, must be {shape}"
        for name, shape in expected.items()
        if name not in stored or tuple(stored[name].shape) != shape
    ] + [f"{name} is not part of a value model" for name in stored if name not in expected]
    if wrong:
        wrong.sort(key=lambda line: not line.startswith("score."))
        raise ValueError(
            f"{folder} does not hold a value model ({len(wrong)} weights do not fit): {'; '.join(wrong[:4])}. "
            "Load a folder written by ValueModel.save_pretrained, or start from a causal language model with "
            "ValueModel.from_backbone"
        )
