"""Convert the pytorch_model.bin files of a folder to safetensors: python -m vgs_ray.value.convert FOLDER.

Pickles are read with `weights_only=True`: a file that contains anything but tensors is refused, and none of its code runs.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vgs_ray.models.folder import INDEX, PICKLES, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor


def convert(folder: Path) -> list[Path]:
    """Write the tensors of all `pytorch_model*.bin` files of a folder as safetensors, and keep the original files.

    Returns:
        The safetensors files of the folder.

    Raises:
        ValueError: the folder has no pickles, it has safetensors already, or a file contains anything but tensors.
    """
    from huggingface_hub import save_torch_state_dict

    pickles = sorted(folder.glob(PICKLES))
    if not pickles:
        raise ValueError(f"{folder} has no {PICKLES}; there is nothing to convert: pass the folder that contains them")
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        raise ValueError(f"{folder} has safetensors already; they would be replaced: use them, or delete them first")
    weights = {name: tensor for file in pickles for name, tensor in _tensors(file).items()}
    save_torch_state_dict(weights, folder)
    return sorted(folder.glob("model*.safetensors"))


def _tensors(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{file} can't be read as plain tensors ({reason}): copy or download it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(
            f"{file} contains more than named tensors; a checkpoint of transformers contains only tensors: pass another folder"
        )
    return tensors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m vgs_ray.value.convert", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="folder with pytorch_model.bin or its shards")
    try:
        written = convert(parser.parse_args().folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"wrote {len(written)} file(s): {', '.join(map(str, written))}")
