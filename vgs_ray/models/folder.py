"""A model's folder on a disk or an object store: the files that it must have.

A model's folder has config.json and weights: safetensors in one file, or in several with an index. Value models are read from
safetensors only. PyTorch pickles are converted first (`vgs_ray.value.convert`), because loading one can run code.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

from vgs_ray.data.storage import AnyPath, is_local, is_url, list_files, read_ranges, storage_path
from vgs_ray.models.copies import cached_copy

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = "pytorch_model*.bin"
VALUE_HEAD = "value_head"
"""Folder in that of a policy with the weights of its value head, so that other software loads the policy without it."""
VOCABULARY = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""Files one of which every tokenizer has."""
TOKENIZER_FILES = (*VOCABULARY, "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja")


LENGTH_BYTES, MAX_HEADER_BYTES = 8, 100_000_000
"""A safetensors file starts with the length of its header; a longer header is refused by the library."""


def is_path(model: str) -> bool:
    """Whether a model's name can only be a path or a URL, not a Hugging Face id."""
    return model.startswith((".", "/", "~")) or is_url(model)


def local_folder(path_or_id: str | Path) -> Path:
    """A local folder, or a local copy of a URL or a Hugging Face id, downloaded once per machine.

    Raises:
        ValueError: a path or URL that is no folder.
    """
    if is_url(str(path_or_id)):
        folder = storage_path(path_or_id)
        if not is_local(folder):
            return cached_copy(folder)
        path_or_id = folder
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if is_path(str(path_or_id)):
        raise ValueError(
            f"{path_or_id} is not a folder; a model is a folder, its URL or a Hugging Face id: check the path"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors"]))


def on_this_machine(model: str, weights: bool = True) -> str:
    """A model for libraries that read folders and Hugging Face ids: a URL becomes a local copy, other names stay.

    Args:
        model: folder, URL or Hugging Face id.
        weights: whether the copy needs the weights; configuration and tokenizer are a few megabytes.

    Raises:
        ValueError: there are no files at the URL.
    """
    if not is_url(model):
        return model
    folder = storage_path(model)
    return str(folder if is_local(folder) else cached_copy(folder, weights))


def model_type(folder: AnyPath) -> str:
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


def check_value_folder(folder: AnyPath) -> None:
    """Check that a value model can be loaded from a folder. Reads the headers of the weight files, not the weights.

    Raises:
        ValueError: config.json or weights are missing or damaged, or the weights are PyTorch pickles.
    """
    model_type(folder)
    for file in weight_files(folder):
        check_header(file)


def weight_files(folder: AnyPath) -> list[AnyPath]:
    """The safetensors files of a folder.

    Raises:
        ValueError: one is missing, or the weights are PyTorch pickles.
    """
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if any(Path(name).match(PICKLES) for name in list_files(folder) if "/" not in name):
        raise ValueError(
            f"{folder} has its weights as PyTorch pickles ({PICKLES}); a value model is read from safetensors: convert "
            f"them with python -m vgs_ray.value.convert {shlex.quote(str(folder))}"
        )
    raise ValueError(
        f"{folder} has no weights ({WEIGHTS}, or shards with {INDEX}): check the path, copy or download them again, or "
        f"convert pytorch_model.bin files with python -m vgs_ray.value.convert FOLDER"
    )


def _shards(folder: AnyPath) -> list[AnyPath]:
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


def check_header(file: AnyPath) -> None:
    """Check that a safetensors file has a whole header and the size that it states.

    Raises:
        ValueError: it has not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if is_local(file):
            with safe_open(file, "np"):
                return
        with (
            tempfile.NamedTemporaryFile() as copy
        ):  # the library reads files only: a header with a hole of the right size
            header_length = int.from_bytes(read_ranges(file, [(0, LENGTH_BYTES)])[0], "little")
            copy.write(read_ranges(file, [(0, LENGTH_BYTES + min(header_length, MAX_HEADER_BYTES))])[0])
            copy.truncate(file.stat().st_size)
            with safe_open(copy.name, "np"):
                pass
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): copy or download it again") from None


def read_json(file: AnyPath) -> dict[str, Any]:
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
