"""A model's folder on disk: the files that it must have.

A model's folder has config.json and weights: safetensors in one file, or in several with an index. Value models are read from
safetensors only. PyTorch pickles are converted first (`vgs_ray.value.convert`), because loading one can run code.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = "pytorch_model*.bin"
VALUE_HEAD = "value_head"
"""Folder in that of a policy with the weights of its value head, so that other software loads the policy without it."""
VOCABULARY = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""Files one of which every tokenizer has."""
TOKENIZER_FILES = (*VOCABULARY, "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja")


def is_path(model: str) -> bool:
    """Whether a model's name can only be a path, not a Hugging Face id."""
    return model.startswith((".", "/", "~"))


def local_folder(path_or_id: str | Path) -> Path:
    """A local folder, or a Hugging Face id after its download.

    Raises:
        ValueError: a path that is no folder.
    """
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if is_path(str(path_or_id)):
        raise ValueError(f"{path_or_id} is not a folder; a model is a folder or a Hugging Face id: check the path")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors"]))


def model_type(folder: Path) -> str:
    """The architecture in config.json, such as `qwen2`.

    Raises:
        ValueError: config.json is missing, can't be read or names no `model_type`.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} has no {CONFIG}; a model's folder contains one next to its weights: check the path")
    config = read_json(file)
    if "model_type" not in config:
        raise ValueError(f"{file} names no model_type, which Transformers needs: add it")
    return str(config["model_type"])


def check_value_folder(folder: Path) -> None:
    """Check that a value model can be loaded from a folder. Reads the headers of the weight files, not the weights.

    Raises:
        ValueError: config.json or weights are missing or damaged, or the weights are PyTorch pickles.
    """
    model_type(folder)
    for file in weight_files(folder):
        check_header(file)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        ValueError: one is missing, or the weights are PyTorch pickles.
    """
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
        f"convert pytorch_model.bin files with python -m vgs_ray.value.convert FOLDER"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    names = read_json(index).get("weight_map")
    if not names or not isinstance(names, dict):
        raise ValueError(f"{index} has no weight_map; it must map each tensor to a file: download it again")
    files = sorted(set(map(str, names.values())))
    elsewhere = [name for name in files if Path(name).name != name]
    if elsewhere:
        raise ValueError(
            f"{index} names {elsewhere[0]!r}; a shard must be in the folder of its index: correct the index"
        )
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(files)} files that {INDEX} names ({', '.join(missing[:3])}): "
            f"copy or download them again"
        )
    return [folder / name for name in files]


def check_header(file: Path) -> None:
    """Check that a safetensors file has a whole header and the size that it states.

    Raises:
        ValueError: it has not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): copy or download it again") from None


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file holds no JSON object.
    """
    try:
        content = json.loads(file.read_text())
    except ValueError as error:  # also of bytes that are not UTF-8
        raise ValueError(f"{file} is not JSON ({error}): copy or download it again") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} contains a {type(content).__name__}; it must be a JSON object: copy or download it again"
        )
    return content
