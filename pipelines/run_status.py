"""The state of each stage of a run, from the files in its folder alone: no Ray, and no table is opened.

A stage takes one or two requests: its manifest if it is complete, else its record. The parts are listed only if no command runs
the stage, because its last record may then be older than its last rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from upath import UPath

from pipelines.tables.lease import has_ended, holder
from pipelines.tables.manifest import read_manifest
from pipelines.tables.progress_record import Point, Record, read_record
from pipelines.tables.stage_table import LAYOUT, MANIFEST, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.files import read_if_exists
from vgs_ray.errors import UserError

SILENT_S = 180.0
"""A command on another machine that has not written for so long is dead, or can't reach the storage."""
SPANS = {"10 min": 600.0, "1 h": 3600.0, "24 h": 86_400.0, "all": float("inf")}
"""Rates are means over the last so many seconds in which the stage ran."""
STEPS = 12
"""Rates in the history."""
Owner = dict[str, Any]


@dataclass(frozen=True)
class StageStatus:
    """The state of one stage. Numbers that are not known are None.

    Attributes:
        state: `not started`, `starting`, `running`, `dead` (the process is gone, or silent), `stopped` (it ended in order before
            the stage was complete) or `complete`.
        rows, expected: committed rows, and rows of the complete table; steps of the stages that train.
        unit: what is counted.
        seen: when the command last wrote its record.
        owner: the process of the command.
        ended: why it stopped.
        rates: rows a second, by the names of `SPANS`.
        history: rows a second from the start to now, in `STEPS` equal times.
        tokens_per_s: generated, in the last 10 minutes.
        errors: rows with an error, by reason.
        replicas, gpus, in_flight: living actors, their GPUs, and the rows that they hold.
        restarts: of engines.
        active_s, gpu_hours: time in which a command ran the stage, and GPU-hours that its actors held.
        left_s: until the stage is complete.
    """

    stage: str
    state: str
    rows: int | None = None
    expected: int | None = None
    unit: str = "row"
    seen: str = ""
    owner: Owner = field(default_factory=dict)
    ended: str = ""
    rates: dict[str, float | None] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)
    tokens_per_s: float | None = None
    errors: dict[str, int] = field(default_factory=dict)
    replicas: int | None = None
    gpus: float | None = None
    in_flight: int | None = None
    restarts: int = 0
    active_s: float | None = None
    gpu_hours: float | None = None
    left_s: float | None = None

    @property
    def failed_share(self) -> float | None:
        return sum(self.errors.values()) / self.rows if self.rows and self.errors else None


class RunStatus:
    """Reads the states of the stages of a run.

    Raises:
        UserError: there is no such run.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._listed: dict[tuple[str, float], int] = {}
        if not recipe.folder.exists():
            raise UserError(
                f"{recipe.folder} does not exist, so no stage of this run has started: check --root and --run-name, or start it "
                f"with python -m pipelines.run {recipe.name}"
            )

    def read(self) -> list[StageStatus]:
        """The present states."""
        folders = {stage: self.recipe.stage_folder(stage) for stage in self.recipe.stages}
        holders = {run: holder(run) for run in {folder.parent for folder in folders.values()}}
        return [self._read(stage, folder, holders[folder.parent]) for stage, folder in folders.items()]

    def _read(self, stage: str, folder: UPath, held_by: Owner | None) -> StageStatus:
        record = read_record(folder)
        try:
            return _complete(stage, read_manifest(folder / MANIFEST), record)
        except FileNotFoundError:
            pass
        if record is None:
            return self._without_record(stage, folder, held_by)
        state = _state(record, held_by)
        rows = record.rows if state == "running" else self._count(stage, record)
        return _begun(stage, state, record, rows)

    def _without_record(self, stage: str, folder: UPath, held_by: Owner | None) -> StageStatus:
        """The first record is written when Ray has started."""
        if read_if_exists(folder / "_started.json") is None:
            return StageStatus(stage, "not started")
        gone = held_by is None or has_ended(held_by)
        return StageStatus(stage, "stopped" if gone else "starting", owner=held_by or {})

    def _count(self, stage: str, record: Record) -> int:
        """Rows in the parts, listed once for each record. Stage clean counts rows that it drops too, as in its record."""
        if stage not in LAYOUT or stage == "clean":
            return record.rows
        key = stage, record.updated
        if key not in self._listed:
            self._listed[key] = stage_table(self.recipe, stage).count_rows()
        return self._listed[key]


def _state(record: Record, held_by: Owner | None) -> str:
    if record.ended:
        return "stopped"
    seen, replaced = record.updated, False
    if held_by:
        replaced = any(held_by[key] != record.owner[key] for key in ("host", "process"))
        seen = max(seen, held_by.get("renewed", 0.0))
    return "dead" if replaced or has_ended(record.owner) or time.time() - seen > SILENT_S else "running"


def _complete(stage: str, manifest: dict[str, Any], record: Record | None) -> StageStatus:
    name = LAYOUT[stage][1] if stage in LAYOUT else ""
    files, counts = manifest["tables"].get(name), manifest["counts"]
    rows = counts.get("steps", record.rows if record else None)
    if files is not None:
        rows = sum(entry["rows"] for entry in files)
    if record is None:
        return StageStatus(stage, "complete", rows, rows, active_s=manifest["seconds"])
    return StageStatus(stage, "complete", rows, rows, **_spent(record))


def _begun(stage: str, state: str, record: Record, rows: int) -> StageStatus:
    rates = {name: record.rate(span) for name, span in SPANS.items()}
    status = StageStatus(
        stage, state, rows, record.expected, owner=record.owner, ended=record.ended, rates=rates,
        history=_history(record.points), **_spent(record),
    )  # fmt: skip
    if state != "running":
        return status
    rate, left = rates["10 min"], None if record.expected is None else max(0, record.expected - rows)
    return replace(
        status,
        replicas=record.work.replicas,
        gpus=record.work.gpus,
        in_flight=record.work.in_flight,
        tokens_per_s=record.tokens_per_s(SPANS["10 min"]),
        left_s=left / rate if rate and left is not None else None,
    )


def _spent(record: Record) -> dict[str, Any]:
    """What remains true when the stage is complete."""
    return {
        "unit": record.unit,
        "seen": datetime.fromtimestamp(record.updated, UTC).isoformat(" ", "seconds"),
        "errors": dict(sorted(record.work.errors.items(), key=lambda item: -item[1])),
        "restarts": record.work.restarts,
        "active_s": round(record.active_s, 1),
        "gpu_hours": record.gpu_s / 3600,
    }


def _history(points: list[Point]) -> list[float]:
    """Rows a second in equal times from the first point to the last; points are further apart in old times."""
    if len(points) < 2 or points[-1].active_s <= points[0].active_s:
        return []
    times, rows = [point.active_s for point in points], [point.rows for point in points]
    edges = np.linspace(times[0], times[-1], STEPS + 1)
    counts = np.interp(edges, times, rows)
    return [max(0.0, float(rate)) for rate in np.diff(counts) / np.diff(edges)]
