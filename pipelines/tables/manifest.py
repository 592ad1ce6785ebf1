"""The manifest of a stage: written when the stage starts and when it is complete, and compared with the table later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.tables.stage_table import LAYOUT, stage_table
from vgs_ray.config import Recipe
from vgs_ray.errors import UserError
from vgs_ray.models.content import content_of

KEYS = {"stage", "identity", "operation", "inputs"}


def description(recipe: Recipe, stage: str, inputs: dict[str, str]) -> dict[str, Any]:
    """What a manifest says before the stage runs.

    Args:
        recipe: the full configuration.
        stage: the stage.
        inputs: fingerprints of the stages that it reads.

    Returns:
        `identity`, which determines the rows, with models by their content; `operation`, everything else of the configuration;
        and the inputs.
    """
    models = {field: content_of(model) for field, model in recipe.models(stage).items()}
    return {
        "stage": stage,
        "recipe": recipe.name,
        "identity": recipe.identity(stage) | models,
        "operation": recipe.operation(stage),
        "inputs": inputs,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields of the identity and inputs that differ, as (name, before, now)."""
    old, new = (
        item["identity"] | {f"inputs.{stage}": each for stage, each in item["inputs"].items()} for item in (before, now)
    )
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [(name, _with_model(before, name, old.get(name)), _with_model(now, name, new.get(name))) for name in names]


def _with_model(manifest: dict[str, Any], field: str, value: Any) -> Any:
    """The value of a field; the name of a model is put before its content."""
    name = manifest["operation"].get(field)
    return f"{name}, {value}" if name and name != value else value


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest as it was written.

    Raises:
        UserError: it can't be read, or an earlier version wrote it.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and manifest.keys() >= KEYS:
            return manifest
        if isinstance(manifest, dict) and manifest.keys() >= {"stage", "config", "inputs"}:
            raise UserError(
                f"{path} was written by an earlier version of vgs_ray, which recorded the configuration in another form; this "
                "version can't continue that run: pass --run-name NAME for a new run"
            )
        reason = "not what a stage writes"
    except ValueError as error:
        reason = str(error)
    raise UserError(
        f"{path} is damaged ({reason}); it describes the stage's table: remove {path.parent} and run python -m "
        f"pipelines.{path.parent.name} again"
    )


def refuse_lost_rows(recipe: Recipe, stage: str, manifest: dict[str, Any]) -> None:
    """Refuse a table with a different number of rows than its manifest says: a part was lost or added.

    Raises:
        UserError: the number differs, or a part is damaged.
    """
    counts = manifest.get("counts", {})
    recorded = counts.get("rows", counts.get("kept"))
    if stage not in LAYOUT or stage == "evaluate" or recorded is None:
        return
    parts = stage_table(recipe, stage)
    if (rows := parts.count_rows()) != recorded:
        raise UserError(
            f"{parts.folder} has {rows:,} rows, and its manifest says {recorded:,}; a finished table must be whole: put the lost "
            f"part-*.parquet back, or remove {parts.folder} and run python -m pipelines.{stage} {recipe.name} again"
        )
