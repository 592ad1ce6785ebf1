"""What a finished stage says of its table, read back and held against what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.tables.stage_table import LAYOUT, stage_table
from vgs_ray.config import Recipe
from vgs_ray.errors import UserError


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest as it was written.

    Raises:
        UserError: it can't be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.keys() >= {"stage", "config", "inputs"}:
            return found
        reason = "not what a stage writes"
    except ValueError as error:
        reason = str(error)
    raise UserError(
        f"{path} is damaged ({reason}); it says what the stage's table holds: remove {path.parent} and run python -m "
        f"pipelines.{path.parent.name} again"
    )


def refuse_lost_rows(recipe: Recipe, stage: str, manifest: dict[str, Any]) -> None:
    """A table that has other rows than its manifest says lost a part, or had one added.

    Raises:
        UserError: it has, or a part is damaged.
    """
    counts = manifest.get("counts", {})
    said = counts.get("rows", counts.get("kept"))
    if stage not in LAYOUT or stage == "evaluate" or said is None:
        return
    parts = stage_table(recipe, stage)
    if (found := parts.count_rows()) != said:
        raise UserError(
            f"{parts.folder} has {found:,} rows, and its manifest says {said:,}; a finished table must be whole: put the lost "
            f"part-*.parquet back, or remove {parts.folder} and run python -m pipelines.{stage} {recipe.name} again"
        )
