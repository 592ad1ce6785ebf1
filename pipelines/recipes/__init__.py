"""Recipes: functions that return a full configuration."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.recipes.sandbox import sandbox, sandbox_controls, sandbox_methods, sandbox_shared
from pipelines.recipes.smollm import EXAMPLES, smollm
from pipelines.recipes.svpo import svpo, svpo_base, svpo_dpo, svpo_math, svpo_sft
from pipelines.recipes.tvm import tvm, tvm_math, tvm_orm, tvm_prm, tvm_vgs
from pipelines.recipes.vgs import vgs, vgs_trial
from pipelines.recipes.words import words
from vgs_ray.config import Recipe

__all__ = [
    "EXAMPLES", "RECIPES", "sandbox", "sandbox_controls", "sandbox_methods", "sandbox_shared", "smollm", "svpo", "svpo_base",
    "svpo_dpo", "svpo_math", "svpo_sft", "tvm", "tvm_math", "tvm_orm", "tvm_prm", "tvm_vgs", "vgs", "vgs_trial", "words",
]  # fmt: skip

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        sandbox, sandbox_controls, sandbox_methods, sandbox_shared, smollm, svpo, svpo_base, svpo_sft, svpo_dpo, svpo_math, tvm,
        tvm_orm, tvm_prm, tvm_vgs, tvm_math, vgs, vgs_trial, words,
    )
}  # fmt: skip
