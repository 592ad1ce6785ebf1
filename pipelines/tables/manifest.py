"""The manifest of a stage: written when the stage starts and when it is complete, and compared with the table later."""

from __future__ import annotations

import json
from typing import Any

from upath import UPath

from vgs_ray.config import Recipe
from vgs_ray.data.storage import list_files, read_bytes
from vgs_ray.errors import UserError
from vgs_ray.models.content import content_of

KEYS = {"stage", "identity", "operation", "inputs"}
OLD_KEYS = ({"stage", "config", "inputs"}, {*KEYS, "counts"})
"""Keys of manifests of earlier versions, which did not name the files of the tables."""


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


def read_manifest(path: UPath) -> dict[str, Any]:
    """A manifest as it was written.

    Raises:
        UserError: it can't be read, or an earlier version wrote it.
    """
    try:
        manifest = json.loads(read_bytes(path))
        keys = manifest.keys() if isinstance(manifest, dict) else set()
        if keys >= {*KEYS, "tables"} or (keys >= KEYS and "counts" not in keys):
            return dict(manifest)
        if any(keys >= old for old in OLD_KEYS):
            raise UserError(
                f"{path} was written by an earlier version of vgs_ray, which stored runs in another form; this version can't "
                "continue that run: pass --run-name NAME for a new run"
            )
        reason = "not what a stage writes"
    except ValueError as error:
        reason = str(error)
    raise UserError(
        f"{path} is damaged ({reason}); it describes the stage's table: remove {path.parent} and run python -m "
        f"pipelines.{path.parent.name} again"
    )


def refuse_lost_files(folder: UPath, manifest: dict[str, Any]) -> None:
    """Refuse a stage whose tables lack a file that its manifest names.

    Raises:
        UserError: a file is missing, or has another size.
    """
    sizes = list_files(folder)
    for entry in (entry for table in manifest["tables"].values() for entry in table):
        if (size := sizes.get(entry["file"])) != entry["bytes"]:
            state = "is missing" if size is None else f"has {size:,} bytes"
            raise UserError(
                f"{folder / entry['file']} {state}, and the manifest says {entry['bytes']:,} bytes; a finished table must be "
                f"whole: put the file back, or remove {folder} and run python -m pipelines.{folder.name} again"
            )
