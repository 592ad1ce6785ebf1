"""What a model is, apart from where it lies: a digest of its folder, so that a changed model is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import blake2b

from obstore.exceptions import BaseError

from vgs_ray.data.storage import AnyPath, cause_of, list_files, read_ranges
from vgs_ray.errors import UserError
from vgs_ray.models import model_folder
from vgs_ray.models.folder import CONFIG, LENGTH_BYTES, TOKENIZER_FILES, VALUE_HEAD, check_header

SMALL_BYTES = 64 * 2**20
"""Files up to this size are read whole."""
SAMPLE_BYTES = 4096
"""Bytes read from each tensor of a larger file."""
SAMPLES = 1024
"""Samples of a larger file without a readable safetensors header."""
READ = (CONFIG, *TOKENIZER_FILES, "*.safetensors", "*.bin", "*.index.json", f"{VALUE_HEAD}/*")
"""Files that determine what a model computes and how text becomes tokens."""


def content_of(model: str) -> str:
    """The content of a model that a recipe names.

    For a folder, its URL and a shipped policy this is a digest of the configuration, the tokenizer and the weights; a copy of a
    folder has the same digest. Of a weight file over 64 MiB, only its size, its header and the first 4 KiB of each tensor are
    read: seconds for 64 GB. Training changes every tensor that it updates, so this notices another checkpoint, but not an edit
    further inside a tensor.
    For a Hugging Face id, a package and a scorer such as `random` it is the name. So is a name that can't be resolved;
    `check_models` reports that.

    Raises:
        UserError: an object store can't be reached, or refuses the request.
    """
    if model.startswith("package:"):
        return model
    try:
        folder = model_folder(model)
        return _digest(folder) if folder else model
    except ValueError:
        return model
    except BaseError as error:
        raise UserError(f"{model} can't be read: {cause_of(error)}") from error


def _digest(folder: AnyPath) -> str:
    files = _files(folder)
    if not (files or folder.is_dir()):
        return str(folder)
    digest = blake2b(digest_size=16)
    for name in sorted(files, key=lambda name: name.split("/")):
        digest.update(f"{name.rpartition('/')[2]} {files[name]} ".encode())
        for piece in _pieces(folder / name, files[name]):
            digest.update(piece)
    return f"content:{digest.hexdigest()}"


def _files(folder: AnyPath) -> dict[str, int]:
    """The sizes of the files in `READ`, by their path in the folder."""
    return {
        name: size
        for name, size in list_files(folder).items()
        if any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in READ)
    }


def _pieces(file: AnyPath, size: int) -> Iterator[bytes]:
    if size <= SMALL_BYTES:
        yield from read_ranges(file, [(0, size)])
        return
    yield from read_ranges(file, [(start, SAMPLE_BYTES) for start in _samples(file, size)])


def _samples(file: AnyPath, size: int) -> list[int]:
    """Positions to read at: the header and the start of each tensor, or evenly spaced ones in any other file."""
    with suppress(ValueError):  # not in safetensors format, or damaged, which loading reports
        check_header(file)
        length = int.from_bytes(read_ranges(file, [(0, LENGTH_BYTES)])[0], "little")
        tensors = json.loads(read_ranges(file, [(LENGTH_BYTES, length)])[0])
        starts = {8 + length + entry["data_offsets"][0] for name, entry in tensors.items() if name != "__metadata__"}
        return [*range(0, 8 + length, SAMPLE_BYTES), *sorted(starts)]
    return [size * index // SAMPLES for index in range(SAMPLES)]
