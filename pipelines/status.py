"""status: how far each stage of a run is, from its folder alone; another machine needs neither Ray nor the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.run_status import RunStatus, StageStatus
from pipelines.tables.lease import who
from vgs_ray.config import Recipe
from vgs_ray.errors import UserError

REFRESH_S = 10.0
COLUMNS = 100
BARS = "▁▂▃▄▅▆▇█"
STYLES = {"complete": "green", "running": "cyan", "dead": "bold red", "stopped": "yellow"}


@dataclass(frozen=True)
class Flags:
    """Options of this command only."""

    watch: bool = False
    """Show the state again every 10 seconds until all stages are complete."""
    json: bool = False
    """Print the state as JSON."""
    price_per_gpu_hour: float = 0.0
    """Price of one GPU for an hour, in any currency; with it, the cost is shown."""


def run(recipe: Recipe, flags: Flags) -> None:
    if flags.price_per_gpu_hour < 0:
        raise UserError(
            f"price_per_gpu_hour is {flags.price_per_gpu_hour:g}; a price is at least 0: pass the price of a GPU"
        )
    reader, console = RunStatus(recipe), Console(soft_wrap=False)
    if not console.is_terminal:
        console.width = COLUMNS
    live = Live(console=console, auto_refresh=False) if flags.watch and console.is_terminal and not flags.json else None
    with live or nullcontext():
        while True:
            stages = reader.read()
            if flags.json:
                print(as_json(recipe, stages), flush=True)
            elif live:
                live.update(as_text(recipe, stages, flags.price_per_gpu_hour), refresh=True)
            else:
                console.print(as_text(recipe, stages, flags.price_per_gpu_hour), highlight=False)
            if not flags.watch or all(stage.state == "complete" for stage in stages):
                return
            time.sleep(REFRESH_S)


def as_json(recipe: Recipe, stages: list[StageStatus]) -> str:
    """The state in one line. Times are seconds, rates are rows a second."""
    return json.dumps({"run": str(recipe.folder), "time": _now(), "stages": [asdict(each) for each in stages]})


def as_text(recipe: Recipe, stages: list[StageStatus], price: float) -> RenderableType:
    """The state as a table, and lines for stages that are not complete."""
    lines = [Text(line) for stage in stages for line in details(stage)]
    return Group(Text(f"{recipe.folder}   {utc(_now())}\n"), table(stages, price), *([""] if lines else []), *lines)


def table(stages: list[StageStatus], price: float) -> Table:
    """One line for each stage, and the sums. It fits 80 columns, or 90 with the cost."""
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    names = ("rows", "done", "rows/min", "failed", "actors", "time", "GPU-h", *(["cost"] if price else []), "left")
    grid.add_column("stage")
    grid.add_column("state")
    for name in names:
        grid.add_column(name, justify="right")
    for stage in stages:
        grid.add_row(stage.stage, Text(stage.state, STYLES.get(stage.state, "")), *_cells(stage, price))
    active, hours = (sum(getattr(each, name) or 0.0 for each in stages) for name in ("active_s", "gpu_hours"))
    cost = [f"{hours * price:,.2f}"] if price else []
    grid.add_row("total", "", *[""] * 5, duration(active), f"{hours:,.1f}", *cost, "")
    return grid


def _cells(stage: StageStatus, price: float) -> list[str]:
    rate, hours, share = stage.rates.get("10 min"), stage.gpu_hours, stage.failed_share
    rows = "-" if stage.rows is None else number(stage.rows)
    if stage.state != "complete" and stage.expected is not None:
        rows += f"/{number(stage.expected)}"
    return [
        rows,
        f"{(stage.rows or 0) / stage.expected:.0%}" if stage.expected else "-",
        "-" if stage.state != "running" or rate is None else per_minute(rate),
        "-" if share is None else f"{share:.2%}",
        "-" if stage.replicas is None else f"{stage.replicas:,}",
        "-" if stage.active_s is None else duration(stage.active_s),
        "-" if hours is None else f"{hours:,.1f}",
        *(["-" if hours is None else f"{hours * price:,.2f}"] if price else []),
        "-" if stage.left_s is None else duration(stage.left_s),
    ]


def details(stage: StageStatus) -> Iterator[str]:
    """Lines about a stage that has begun: its command, rates, errors and actors."""
    if stage.state == "starting":
        yield f"{stage.stage}: {who(stage.owner)} began it at {utc(stage.owner['since'])}"
    if stage.state in ("running", "dead", "stopped") and stage.owner:
        yield f"{stage.stage}: {_command(stage)}"
        if rates := [f"{name} {per_minute(rate)}" for name, rate in stage.rates.items() if rate is not None]:
            peak = max(stage.history, default=0.0)
            bars = "".join(BARS[round(each / peak * (len(BARS) - 1))] for each in stage.history) if peak > 0 else ""
            yield f"  per min   {', '.join(rates)}   {bars}".rstrip()
    if stage.errors:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in stage.errors.items())
        prefix = "  failed" if stage.state != "complete" else f"{stage.stage}: failed"
        yield f"{prefix} {sum(stage.errors.values()):,}   {reasons}"
    if stage.state == "running" and stage.replicas:
        tokens = f", {stage.tokens_per_s:,.0f} generated tokens/s" if stage.tokens_per_s else ""
        yield (
            f"  {stage.replicas:,} actors with {stage.gpus:g} GPUs, {stage.in_flight or 0:,} in flight, "
            f"{stage.restarts:,} restarts{tokens}"
        )


def _command(stage: StageStatus) -> str:
    process = who(stage.owner)
    if stage.state == "running":
        ago = (datetime.now(UTC) - datetime.fromisoformat(stage.seen)).total_seconds()
        return f"{process} began it at {utc(stage.owner['since'])}, last record {duration(max(0.0, ago))} ago"
    if stage.state == "dead":
        return f"{process} has ended, or has not written since {utc(stage.seen)}: run the same command to continue"
    return f"{process} stopped at {utc(stage.seen)}: {stage.ended}"


def utc(iso: str) -> str:
    return iso.replace("+00:00", " UTC")


def number(count: int) -> str:
    return f"{count:,}" if count < 10_000 else str(tqdm.format_sizeof(count))


def per_minute(rate: float) -> str:
    """A rate a second as text a minute."""
    return f"{rate * 60:,.0f}" if rate * 60 >= 10 else f"{rate * 60:.2g}"


def duration(seconds: float) -> str:
    """Such as 42 s, 17 min, 5.3 h or 3.2 d."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def _now() -> str:
    return datetime.now(UTC).isoformat(" ", "seconds")


if __name__ == "__main__":
    cli(run, "pipelines.status", writes=False, flags=Flags())
