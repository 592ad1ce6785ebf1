"""The configuration and the tensors in a value model's folder.

In: a folder, see `vgs_ray.models.folder`. Out: tensors by name, or a `ValueError` that says what is wrong.
torch and transformers are imported inside the calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgs_ray.models.folder import check_header, model_type, weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL_TYPES = ("qwen2", "qwen3", "llama")


def read_config(folder: Path) -> Any:
    """The folder's transformers configuration.

    Raises:
        ValueError: there is no config.json, it can't be read, or its `model_type` is not served.
    """
    from transformers import AutoConfig

    if (name := model_type(folder)) not in MODEL_TYPES:
        raise ValueError(
            f"{folder} has model_type {name!r}; a value model needs one of {', '.join(MODEL_TYPES)}: "
            f"start from such a model, or add the type here and in the vLLM plugin"
        )
    return AutoConfig.from_pretrained(folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name, on the CPU.

    Raises:
        ValueError: a file is missing or damaged, or the weights are PyTorch pickles.
    """
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        check_header(file)
        weights |= load_file(file)
    return weights


def computed_modules(model: nn.Module) -> set[str]:
    """Names of the modules that take nothing from a checkpoint: all their state is non-persistent buffers.

    Older releases of transformers saved such buffers, for example the rotary frequencies of each layer
    (`layers.0.self_attn.rotary_emb.inv_freq`), which are now computed from the configuration, once for all layers.

    Args:
        model: of transformers or of vLLM.

    Returns:
        The last part of each module's name, `rotary_emb` in the example.
    """
    return {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if next(module.buffers(recurse=False), None) is not None and not module.state_dict()
    }


def is_computed(name: str, modules: set[str]) -> bool:
    """Whether a checkpoint's tensor belongs to one of `computed_modules`, wherever in the model that stood when saved."""
    return name.rpartition(".")[0].rpartition(".")[2] in modules


def check_shapes(folder: Path, expected: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> None:
    """Name the first weights that do not fit, so that a causal language model is not mistaken for a value model.

    Raises:
        ValueError: a weight is missing, has another shape, or is not part of the model.
    """
    wrong = [
        f"{name} is {tuple(found[name].shape) if name in found else 'missing'}, must be {shape}"
        for name, shape in expected.items()
        if name not in found or tuple(found[name].shape) != shape
    ] + [f"{name} is not part of a value model" for name in found if name not in expected]
    if wrong:
        wrong.sort(key=lambda line: not line.startswith("score."))
        raise ValueError(
            f"{folder} does not hold a value model ({len(wrong)} weights do not fit): {'; '.join(wrong[:4])}. "
            f"Load a folder that ValueModel.save_pretrained wrote, or start from a causal language model with "
            f"ValueModel.from_backbone"
        )
