"""The metrics log, one row for each training step, and the progress text made from it."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from vgs_ray.data.files import read_end
from vgs_ray.data.storage import AnyPath, is_local

METRICS_LOG = "metrics.jsonl"
REPORTED = ("auc", "brier", "ece", "cross_entropy", "auc_start", "auc_end")
TAIL_BYTES = 2**16
"""Holds the last rows. The progress bar reads the log twice a second, and the whole log takes megabytes."""
POLL_S = 5.0
"""Seconds between two reads of a log on an object store."""


def append_metrics(log: Path, metrics: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def repair_log(log: Path) -> None:
    """End a line that a killed process left incomplete, so that the next row starts on a new line."""
    if log.exists() and not log.read_bytes().endswith(b"\n"):
        with log.open("a") as file:
            file.write("\n")


def read_metrics(log: AnyPath, tail: bool = False) -> list[dict[str, float]]:
    """Complete rows in the order of their steps. Of a step that was repeated after a kill, the last row counts.

    Args:
        log: the file, which may be missing.
        tail: read only the last rows; on an object store, of the last few seconds.
    """
    by_step: dict[float, dict[str, float]] = {}
    if not tail:
        content = read_end(log)
    elif is_local(log):
        content = read_end(log, TAIL_BYTES)
    else:
        content = _polled(log, int(time.monotonic() / POLL_S))
    for line in content.splitlines():
        try:
            row = json.loads(line)
            by_step[row["step"]] = row
        except (ValueError, TypeError, KeyError):  # incomplete after a kill, or at the beginning of the tail
            continue
    return [by_step[step] for step in sorted(by_step)]


@lru_cache(maxsize=1)
def _polled(log: AnyPath, interval: int) -> bytes:
    """One request in each interval of `POLL_S` seconds."""
    return read_end(log, TAIL_BYTES)


def last_validation(rows: list[dict[str, float]]) -> dict[str, float]:
    """The last row with validation metrics; empty if there is none."""
    return next((row for row in reversed(rows) if "auc" in row), {})


def summarize_run(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Entries of the manifest: metrics of the last validation, steps, tokens."""
    validation = last_validation(rows)
    return {
        "validation": {name: round(validation[name], 4) for name in REPORTED if name in validation},
        "steps": len(rows),
        "tokens": int(sum(row.get("tokens", 0) for row in rows)),
    }


def last_step(log: AnyPath) -> int:
    rows = read_metrics(log, tail=True)[-1:]
    return int(rows[0]["step"]) if rows else 0


def progress_text(log: AnyPath) -> str:
    """Time left, loss, throughput, padding, MFU if it is known, and the AUC of the last validation."""
    from tqdm import tqdm

    rows = read_metrics(log, tail=True)
    if not rows:
        return "starting workers"
    row = rows[-1]
    parts = [
        f"{tqdm.format_interval(row['seconds_left'])} left",
        f"loss {row['loss']:.3f}",
        f"{tqdm.format_sizeof(row['tokens_per_s'])} tok/s",
        f"pad {row['padding']:.0%}",
    ]
    parts += [f"MFU {row['mfu']:.0%}"] if "mfu" in row else []
    validation = last_validation(rows)
    return ", ".join(parts + ([f"AUC {validation['auc']:.3f}"] if validation else []))
