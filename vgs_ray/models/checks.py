"""Whether the models that a stage loads are there, asked on the driver before anything starts.

In: a recipe and a stage. Out: nothing, or a `UserError` that names the field, the model and the remedy. Of a hub id at most
config.json is fetched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from vgs_ray.config import Recipe
from vgs_ray.errors import UserError
from vgs_ray.models import RANDOM, model_path

WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def check_models(recipe: Recipe, stage: str) -> None:
    """Refuse a stage whose models can't be loaded.

    Raises:
        UserError: an id that does not exist or can't be asked for, or a folder that holds no model.
    """
    for field, model in recipe.models(stage).items():
        if model != RANDOM:
            _check(field, model, policy=field.endswith(".model"))


def _check(field: str, model: str, policy: bool) -> None:
    try:
        place = model_path(model)
    except ValueError as error:
        raise UserError(f"{field} is {model!r}: {error}") from None
    remedy = f"pass another --{field.replace('_', '-')}"
    if Path(place).is_dir():
        _check_folder(f"{field} is {model!r}", Path(place), policy, remedy)
    elif Path(place).exists() or place.startswith((".", "/", "~")):
        raise UserError(f"{field} is {model!r}, which is no folder; a model is a folder or a Hugging Face id: {remedy}")
    else:
        _check_hub(f"{field} is {model!r}", place, remedy)


def _check_folder(said: str, folder: Path, policy: bool, remedy: str) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{said}, a folder whose config.json can't be read ({type(error).__name__}); a model's folder holds config.json and "
            f"weights: {remedy}"
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{said}, whose config.json names no model_type; Transformers needs one: mend it, or {remedy}")
    if not any(found for pattern in WEIGHTS for found in folder.glob(pattern)):
        raise UserError(f"{said}, a folder without weights ({', '.join(WEIGHTS)}): copy them there, or {remedy}")
    if policy:
        _check_tokenizer(said, folder, remedy)


def _check_tokenizer(said: str, folder: Path, remedy: str) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise UserError(f"{said}, a folder without a tokenizer ({', '.join(TOKENIZER)}): copy it there, or {remedy}")
    config = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file() or (config.is_file() and "chat_template" in config.read_text()):
        return
    raise UserError(
        f"{said}, whose tokenizer has no chat template; a prompt needs one: add chat_template.jinja there, or {remedy}"
    )


def _check_hub(said: str, model: str, remedy: str) -> None:
    try:
        with _without_retries_told():
            hf_hub_download(model, "config.json")
    except HFValidationError:
        reason = "is neither a folder that exists nor a Hugging Face id such as Qwen/Qwen3-1.7B"
    except GatedRepoError:
        reason = "is gated on Hugging Face: accept its terms there and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "does not exist on Hugging Face, or is private: check the id, or set HF_TOKEN"
    except LocalEntryNotFoundError:
        reason = (
            "can't be asked for (no connection to Hugging Face) and is not in its cache: check the network and the id"
        )
    except EntryNotFoundError:
        reason = "has no config.json, so it is no model that Transformers can load"
    except OSError as error:
        reason = f"can't be asked for ({type(error).__name__}): check the network and the id"
    else:
        return
    raise UserError(f"{said}, which {reason}; a model is a folder or a Hugging Face id: {remedy}")


@contextmanager
def _without_retries_told() -> Iterator[None]:
    """Without the library's lines about each retry: the error says what came of them."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
