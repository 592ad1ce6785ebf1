"""Whether the models that a stage loads exist, checked on the driver before anything starts.

In: a recipe and a stage. Out: nothing, or a `UserError` that names the field, the model and the remedy. Of a URL only names,
small files and headers are read; of a Hugging Face id, at most config.json is downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from obstore.exceptions import BaseError
from upath import UPath

from vgs_ray.config import Recipe
from vgs_ray.data.storage import AnyPath, cause_of, is_local, is_url, list_files, storage_path
from vgs_ray.errors import UserError, option_name
from vgs_ray.models import OWN_HEAD, RANDOM, model_folder, model_path
from vgs_ray.models.folder import CONFIG, VALUE_HEAD, VOCABULARY, check_header, check_value_folder, is_path, model_type
from vgs_ray.models.folder import WEIGHTS as SAFETENSORS

WEIGHTS = ("*.safetensors", "*.bin")


def check_models(recipe: Recipe, stage: str) -> None:
    """Refuse a stage whose models can't be loaded.

    Raises:
        UserError: a folder that contains no model, or an id that does not exist or can't be looked up.
    """
    for field, model in recipe.models(stage).items():
        if model not in (RANDOM, OWN_HEAD):
            _check(field, model, policy=field.endswith((".model", ".policy")))
    if stage in ("trees", "evaluate", "serve"):
        _check_searched_policy(recipe, stage)


def _check_searched_policy(recipe: Recipe, stage: str) -> None:
    """Check the policy of a stage's searches and its value head. A model that a stage still has to write is not looked for."""
    policy = recipe.policy.model if stage == "trees" else evaluated_policy(recipe)
    field = "policy.model" if policy == recipe.policy.model else "evaluate.policy"
    writer = recipe.policy_stage
    if policy == str(recipe.written_policy) and not (recipe.stage_folder(writer) / "_stage.json").exists():
        if stage == "serve":
            raise UserError(
                f"{policy} is missing, which stage {writer} writes: run python -m pipelines.{writer} {recipe.name} first"
            )
        return
    if stage == "serve":
        _check(field, policy, policy=True)
    if recipe.uses_own_head(stage):
        _check_value_head(f"{field} is {policy!r}", policy, f"pass another {option_name(f'{stage}.value_model')}")


def evaluated_policy(recipe: Recipe) -> str:
    """The policy that evaluation and the endpoint use; by default the one that a stage of the recipe writes, if one does."""
    return recipe.evaluate.policy or str(recipe.written_policy or recipe.policy.model)


def value_model(recipe: Recipe, model: str = "") -> str:
    """The folder, URL or Hugging Face id of a value model.

    Without a name, it is the folder that stage train wrote, or the policy's own value head if no stage writes such a folder.

    Raises:
        UserError: the folder doesn't exist, a file is missing, or the weights are PyTorch pickles.
    """
    if not model and ("train" not in recipe.stages or recipe.train.share_policy):
        return OWN_HEAD
    if model in (RANDOM, OWN_HEAD) or (model and not Path(model).is_dir() and not is_path(model)):
        return model
    folder = _folder_of(model) if model else recipe.stage_folder("train") / "value_model"
    try:
        with _reachable(folder):
            check_value_folder(folder)
            headed = (folder / VALUE_HEAD / CONFIG).is_file()
    except ValueError as error:
        missing = not model and not (folder / CONFIG).exists()
        remedy = f": run python -m pipelines.train {recipe.name} first" if missing else ""
        raise UserError(f"{error}{remedy}") from None
    if headed:
        raise UserError(
            f"{folder} is a policy with a value head, which scores its own samples only: pass it as --evaluate.policy, with "
            f"{OWN_HEAD!r} as the value model"
        )
    return str(folder)


def _folder_of(path: str) -> AnyPath:
    return storage_path(path) if is_url(path) else Path(path).absolute()


@contextmanager
def _reachable(folder: AnyPath) -> Iterator[None]:
    """Turn the error of an object store into a `ValueError`."""
    try:
        yield
    except BaseError as error:
        raise ValueError(f"{folder} can't be read: {cause_of(error)}") from error


def _check_value_head(subject: str, policy: str, remedy: str) -> None:
    """Check that a policy has a value head."""
    name = f"{VALUE_HEAD}/{SAFETENSORS}"
    try:
        folder = model_folder(policy)
        weights = folder / name if folder else Path(hf_hub_download(policy, name))
        with _reachable(weights):
            if weights.is_file():
                check_header(weights)
                return
    except (EntryNotFoundError, OSError):
        pass
    except ValueError as error:
        raise UserError(f"{subject}: {error}, or {remedy}") from None
    raise UserError(f"{subject}, which has no value head ({name}), and the value model is {OWN_HEAD!r}: {remedy}")


def _check(field: str, model: str, policy: bool) -> None:
    try:
        path = model_path(model)
    except ValueError as error:
        raise UserError(f"{field} is {model!r}: {error}") from None
    subject, remedy = f"{field} is {model!r}", f"pass another {option_name(field)}"
    if Path(path).is_dir() or is_url(path):
        _check_folder(subject, _folder_of(path), policy, remedy)
    elif Path(path).exists() or is_path(path):
        raise UserError(
            f"{subject}, which is not a folder; a model is a folder, its URL or a Hugging Face id: {remedy}"
        )
    else:
        _check_hub(subject, path, remedy)


def _check_folder(subject: str, folder: AnyPath, policy: bool, remedy: str) -> None:
    try:
        with _reachable(folder):
            files = [name for name in list_files(folder) if "/" not in name]
            model_type(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{subject}, which is not a model's folder: {error}, or {remedy}") from error
    if not any(fnmatch(name, pattern) for pattern in WEIGHTS for name in files):
        raise UserError(f"{subject}, a folder without weights ({', '.join(WEIGHTS)}): copy them there, or {remedy}")
    if not is_local(folder):
        _check_headers(subject, [folder / name for name in files if fnmatch(name, WEIGHTS[0])], remedy)
    if policy:
        _check_tokenizer(subject, folder, files, remedy)


def _check_headers(subject: str, files: list[UPath], remedy: str) -> None:
    """Check weights on an object store before all nodes download them."""
    try:
        for file in files:
            with _reachable(file):
                check_header(file)
    except ValueError as error:
        raise UserError(f"{subject}: {error}, or {remedy}") from None


def _check_tokenizer(subject: str, folder: AnyPath, files: list[str], remedy: str) -> None:
    if not {*VOCABULARY} & {*files}:
        raise UserError(
            f"{subject}, a folder without a tokenizer ({', '.join(VOCABULARY)}): copy it there, or {remedy}"
        )
    config = "tokenizer_config.json"
    if "chat_template.jinja" in files or (config in files and "chat_template" in (folder / config).read_text()):
        return
    raise UserError(
        f"{subject}, whose tokenizer has no chat template, which a prompt needs: add chat_template.jinja there, or {remedy}"
    )


def _check_hub(subject: str, model: str, remedy: str) -> None:
    try:
        with _quiet_retries():
            hf_hub_download(model, CONFIG)
    except HFValidationError:
        cause = "is neither an existing folder nor a Hugging Face id such as Qwen/Qwen3-1.7B"
    except GatedRepoError:
        cause = "is gated on Hugging Face: accept its terms there and set HF_TOKEN"
    except RepositoryNotFoundError:
        cause = "does not exist on Hugging Face, or is private: check the id, or set HF_TOKEN"
    except LocalEntryNotFoundError:
        cause = (
            "can't be looked up (no connection to Hugging Face) and is not in its cache: check the network and the id"
        )
    except EntryNotFoundError:
        cause = f"has no {CONFIG}, so Transformers can't load it"
    except OSError as error:
        cause = f"can't be looked up ({type(error).__name__}): check the network and the id"
    else:
        return
    raise UserError(f"{subject}, which {cause}; a model is a folder, its URL or a Hugging Face id: {remedy}")


@contextmanager
def _quiet_retries() -> Iterator[None]:
    """Without the library's log of each retry, because the error that follows says what failed."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
