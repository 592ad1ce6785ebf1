"""The record of a running stage: `_progress.json` in its folder, from which `python -m pipelines.status` tells how far it is.

The command that runs the stage replaces the file about once a minute. A reader therefore needs one request, however many parts
the table has. The file has the present state and a history of at most `MAX_POINTS` points; old points are further apart.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from upath import UPath

from vgs_ray.data.files import read_if_exists, write_atomically

FILE = "_progress.json"
MAX_POINTS = 600


class Point(NamedTuple):
    """One point of the history.

    Attributes:
        time: seconds since the epoch.
        rows: committed rows.
        active_s: seconds in which a command ran the stage.
        generated: tokens.
    """

    time: float
    rows: int
    active_s: float
    generated: int


@dataclass
class Work:
    """What the actors of a stage report, summed over all actors of a command.

    Attributes:
        replicas, gpus, in_flight: living actors, their GPUs, and the rows that they hold.
        restarts: actors that replaced a dead one.
        errors: rows with an error, by reason.
        tokens: by kind: generated, prefilled, cached, scored.
    """

    replicas: int = 0
    gpus: float = 0.0
    in_flight: int = 0
    restarts: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass
class Record:
    """The content of the file.

    Attributes:
        unit: what is counted.
        expected: final count; None if it is not known.
        owner: the process of the command: host, machine, process and since.
        rows: committed rows.
        updated: when the command last wrote the record, in seconds since the epoch.
        active_s: seconds in which a command ran the stage.
        gpu_s: GPUs times seconds, while actors held them.
        work: of all commands that have run the stage.
        ended: why the command stopped before the stage was complete; empty if it did not, or was killed.
        points: the history, oldest first.
    """

    unit: str
    expected: int | None
    owner: dict[str, Any]
    rows: int
    updated: float
    active_s: float = 0.0
    gpu_s: float = 0.0
    work: Work = field(default_factory=Work)
    ended: str = ""
    points: list[Point] = field(default_factory=list)

    def write(self, folder: UPath) -> None:
        """Replace the file."""
        write_atomically(folder / FILE, json.dumps(asdict(self)))

    def mark(self) -> None:
        """Add the present state to the history."""
        generated = self.work.tokens.get("generated", 0)
        self.points.append(Point(round(self.updated, 1), self.rows, round(self.active_s, 1), generated))
        if len(self.points) > MAX_POINTS:
            half = MAX_POINTS // 2
            self.points = self.points[:half:2] + self.points[half:]

    def advance(self, now: float, rows: int, work: Work) -> None:
        """Set the present state. The GPUs of the last call were held until now."""
        passed = max(0.0, now - self.updated)
        self.active_s += passed
        self.gpu_s += passed * self.work.gpus
        self.updated, self.rows, self.work = now, rows, work

    def rate(self, over_s: float) -> float | None:
        """Rows a second during the last `over_s` seconds in which the stage ran; None if the history is too short to tell."""
        return self._rate(over_s, "rows")

    def tokens_per_s(self, over_s: float) -> float | None:
        """Generated tokens a second, likewise."""
        return self._rate(over_s, "generated")

    def _rate(self, over_s: float, counted: str) -> float | None:
        if not self.points:
            return None
        last = self.points[-1]
        first = next(point for point in self.points if point.active_s >= last.active_s - over_s)
        if first is last and len(self.points) > 1:  # the last command wrote one point only
            first = self.points[-2]
        passed = last.active_s - first.active_s
        return (getattr(last, counted) - getattr(first, counted)) / passed if passed > 0 else None


def read_record(folder: UPath) -> Record | None:
    """The record in the folder of a stage; None if there is none, or it is not readable."""
    text = read_if_exists(folder / FILE)
    try:
        content = json.loads(text or "null")
        known = {item.name: content[item.name] for item in fields(Record)}
        known["work"] = Work(**known["work"])
        known["points"] = [Point(*point) for point in known["points"]]
        return Record(**known)
    except (ValueError, TypeError, KeyError):
        return None


def begin_record(
    folder: UPath, unit: str, expected: int | None, owner: dict[str, Any], rows: int, now: float
) -> Record:
    """The record of a command that starts or continues a stage.

    The time and the GPUs of earlier commands still count. The history ends if rows were removed, or if something else is counted.
    """
    earlier = read_record(folder)
    if earlier is None:
        return Record(unit, expected, owner, rows, now)
    same = (earlier.unit, earlier.expected) == (unit, expected) and rows >= earlier.rows
    work = Work(restarts=earlier.work.restarts, errors=earlier.work.errors, tokens=earlier.work.tokens)
    points = earlier.points if same else []
    return Record(unit, expected, owner, rows, now, earlier.active_s, earlier.gpu_s, work, points=points)


def total_work(before: Work, now: Work) -> Work:
    """The work of this command together with that of earlier ones."""
    return Work(
        replicas=now.replicas,
        gpus=now.gpus,
        in_flight=now.in_flight,
        restarts=before.restarts + now.restarts,
        errors=dict(Counter(before.errors) + Counter(now.errors)),
        tokens=dict(Counter(before.tokens) + Counter(now.tokens)),
    )
