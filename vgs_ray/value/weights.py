"""A value model's folder on disk: whether it is whole, and its tensors.

In: a folder with config.json and safetensors in one file or in several with an index. Out: tensors by name, or a
`ValueError` that says what the folder lacks. Only safetensors are read: a PyTorch pickle is converted first
(`vgs_ray.value.convert`), so that loading a model never runs code that came with it.
torch and transformers are imported inside the calls.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = "pytorch_model*.bin"
MODEL_TYPES = ("qwen2", "qwen3", "llama")


def local_folder(path_or_id: str | Path) -> Path:
    """A local folder, downloaded first when it is a hub id.

    Raises:
        ValueError: a path that is no folder.
    """
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if str(path_or_id).startswith(("/", ".", "~")):
        raise ValueError(f"{path_or_id} is not a folder; a model is a folder or a hub id: check the path")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors"]))


def read_config(folder: Path) -> Any:
    """The folder's transformers configuration.

    Raises:
        ValueError: there is no config.json, it can't be read, or its `model_type` is not served.
    """
    from transformers import AutoConfig

    model_type = _model_type(folder)
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"{folder} has model_type {model_type!r}; a value model needs one of {', '.join(MODEL_TYPES)}: "
            f"start from such a model, or add the type here and in the vLLM plugin"
        )
    return AutoConfig.from_pretrained(folder)


def check_folder(folder: Path) -> None:
    """Find out before an engine starts that a folder can't be loaded. Reads headers only, no weights.

    Raises:
        ValueError: config.json or weights are missing or damaged, or the weights are PyTorch pickles.
    """
    _model_type(folder)
    for file in _files(folder):
        _check_header(file)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name, on the CPU.

    Raises:
        ValueError: as `check_folder`.
    """
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for file in _files(folder):
        _check_header(file)
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


def _model_type(folder: Path) -> str:
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} has no config.json; a model's folder holds one beside its weights: check the path")
    config = _json(file)
    if "model_type" not in config:
        raise ValueError(f"{file} names no model_type; a value model needs one of {', '.join(MODEL_TYPES)}: add it")
    return str(config["model_type"])


def _files(folder: Path) -> list[Path]:
    """The folder's safetensors files; all of them exist."""
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if any(folder.glob(PICKLES)):
        raise ValueError(
            f"{folder} has its weights as PyTorch pickles ({PICKLES}); a value model is read from safetensors: convert "
            f"them with python -m vgs_ray.value.convert {shlex.quote(str(folder))}"
        )
    raise ValueError(
        f"{folder} has no weights ({WEIGHTS}, or shards with {INDEX}): check the path, copy or download them again, or "
        f"convert a pytorch_model.bin that lies elsewhere with python -m vgs_ray.value.convert FOLDER"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    names = _json(index).get("weight_map")
    if not names or not isinstance(names, dict):
        raise ValueError(f"{index} has no weight_map; it must map each tensor to a file: download it again")
    files = sorted(set(map(str, names.values())))
    away = [name for name in files if Path(name).name != name]
    if away:
        raise ValueError(f"{index} names {away[0]!r}; a shard is a file beside its index: mend the index")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(files)} files that {INDEX} names ({', '.join(missing[:3])}): "
            f"copy or download them again"
        )
    return [folder / name for name in files]


def _check_header(file: Path) -> None:
    """The header is whole, and the file is as long as it says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): copy or download it again") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:  # of bytes that are no UTF-8, too
        raise ValueError(f"{file} is not JSON ({error}): copy or download it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}; it must be a JSON object: copy or download it again")
    return found
