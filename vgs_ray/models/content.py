"""What a model is, apart from where it lies: a digest of a local folder, so that a changed model is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from vgs_ray.models import model_path
from vgs_ray.models.folder import CONFIG, TOKENIZER_FILES, VALUE_HEAD, check_header

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

    For a local folder and a shipped policy this is a digest of the configuration, the tokenizer and the weights. Of a weight file
    over 64 MiB, only its size, its header and the first 4 KiB of each tensor are read: seconds for 64 GB. Training changes
    every tensor that it updates, so this notices another checkpoint, but not an edit further inside a tensor.
    For a Hugging Face id, a package and a scorer such as `random` it is the name. So is a name that can't be resolved;
    `check_models` reports that.
    """
    try:
        folder = Path(model_path(model)) if not model.startswith("package:") else None
    except ValueError:
        return model
    if folder is None or not folder.is_dir():
        return model
    digest = blake2b(digest_size=16)
    for file in sorted({path for pattern in READ for path in folder.glob(pattern) if path.is_file()}):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        for piece in _pieces(file, size):
            digest.update(piece)
    return f"content:{digest.hexdigest()}"


def _pieces(file: Path, size: int) -> Iterator[bytes]:
    with file.open("rb") as content:
        if size <= SMALL_BYTES:
            yield content.read()
            return
        for start in _samples(file, size):
            content.seek(start)
            yield content.read(SAMPLE_BYTES)


def _samples(file: Path, size: int) -> list[int]:
    """Positions to read at: the header and the start of each tensor, or evenly spaced ones in any other file."""
    with suppress(ValueError):  # not in safetensors format, or damaged, which loading reports
        check_header(file)
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            tensors = json.loads(content.read(length))
        starts = {8 + length + entry["data_offsets"][0] for name, entry in tensors.items() if name != "__metadata__"}
        return [*range(0, 8 + length, SAMPLE_BYTES), *sorted(starts)]
    return [size * index // SAMPLES for index in range(SAMPLES)]
