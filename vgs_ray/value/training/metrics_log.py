"""`metrics.jsonl`: one row for each step, also after kills; and what a person reads of it while training runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REPORTED = ("auc", "brier", "ece", "cross_entropy", "auc_start", "auc_end")
TAIL = (
    2**16
)  # bytes that hold the last rows; a run's whole log is megabytes, and the progress line looks twice a second


def append_metrics(log: Path, metrics: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def repair_log(log: Path) -> None:
    """End the line that a kill tore, so that the next row does not become a part of it."""
    if log.exists() and not log.read_bytes().endswith(b"\n"):
        with log.open("a") as file:
            file.write("\n")


def read_metrics(log: Path, tail: bool = False) -> list[dict[str, float]]:
    """Rows that are whole, by step; steps that were redone after a kill occur once, as they were redone.

    Args:
        log: the file; it need not exist.
        tail: only the last rows.
    """
    by_step: dict[float, dict[str, float]] = {}
    if not log.exists():
        return []
    with log.open("rb") as file:
        if tail:
            file.seek(max(0, os.path.getsize(log) - TAIL))
        for line in file.read().splitlines():
            try:
                row = json.loads(line)
                by_step[row["step"]] = row
            except (ValueError, TypeError, KeyError):  # torn by a kill, or by the beginning of the tail
                continue
    return [by_step[step] for step in sorted(by_step)]


def summarize_run(rows: list[dict[str, float]]) -> dict[str, Any]:
    """What the manifest says of the whole training: last validation, steps, tokens."""
    validated = [row for row in rows if "auc" in row][-1:]
    return {
        "validation": {name: round(row[name], 4) for row in validated for name in REPORTED if name in row},
        "steps": len(rows),
        "tokens": int(sum(row.get("tokens", 0) for row in rows)),
    }


def last_step(log: Path) -> int:
    rows = read_metrics(log, tail=True)[-1:]
    return int(rows[0]["step"]) if rows else 0


def progress_text(log: Path) -> str:
    """What the progress line says: time left, loss, speed, padding, MFU where it is known, the last validation."""
    rows = read_metrics(log, tail=True)
    if not rows:
        return "starting workers"
    row = rows[-1]
    parts = [
        f"{_clock(row['seconds_left'])} left",
        f"loss {row['loss']:.3f}",
        f"{_short(row['tokens_per_s'])} tok/s",
        f"pad {row['padding']:.0%}",
    ]
    parts += [f"MFU {row['mfu']:.0%}"] if "mfu" in row else []
    parts += [f"AUC {each['auc']:.3f}" for each in rows if "auc" in each][-1:]
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _short(number: float) -> str:
    """Three digits: 842, 9.93k, 1.23M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
