"""Two commands of one stage on an S3 server, of which the first is cut off from its network while it works.

Each command is a process in a network of its own. It opens the stage, commits its rows one block after the other, and publishes
the table. Leases expire after two seconds. The first command is connected again when the second one has the lease.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from namespaces import HERE, Network, in_namespaces, wait_for
from s3_server import BUCKET, reach, s3_server
from scripted_stage import IDS, close, committed, verdict, work

from pipelines.recipes import sandbox
from pipelines.tables import lease
from pipelines.tables.stage import only_writer, open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe

BLOCK, BLOCK_S = 3, 0.3
lease.RENEW_S, lease.EXPIRES_S, lease.POLL_S = 0.5, 2.0, 0.2


def recipe() -> Recipe:
    return replace(sandbox(), root=f"s3://{BUCKET}/runs")


def process_of_lease() -> int:
    """The process that holds the lease; 0 if none does."""
    held = lease.holder(recipe().folder)
    return int(held["process"]) if held else 0


def command(generated: Path) -> None:
    """What a command does that holds the lease from its start to its end."""
    with only_writer(recipe()):
        stage = open_stage(recipe(), "roll_out", ())
        if stage is None:
            return
        table, done = stage_table(recipe(), "roll_out").claim(), committed(recipe())
        left = [row_id for row_id in IDS if row_id not in done]
        for start in range(0, len(left), BLOCK):
            time.sleep(BLOCK_S)
            work(table, [left[start : start + BLOCK]], generated, 0.0)
        close(stage, table)


def main() -> None:
    in_namespaces({})
    with (
        tempfile.TemporaryDirectory(dir="/run") as folder,
        s3_server(Path(folder), HERE) as server,
        reach(server.endpoint),
    ):
        program = [sys.executable, __file__, "command", f"{folder}/generated"]
        networks = [Network(number) for number in (1, 2)]
        first = networks[0].start_command(program)
        wait_for(lambda: committed(recipe()), "rows of the first command")
        networks[0].cut()
        lost = process_of_lease()
        second = networks[1].start_command(program)
        wait_for(lambda: process_of_lease() != lost, "the lease of the second command")
        networks[0].cut(off=False)
        codes = first.wait(60), second.wait(60)
        rows = (Path(folder) / "generated").read_text().split()
        print(f"exit codes {codes}, {len(rows)} rows generated, {verdict(recipe()) or 'the table is right'}")


if __name__ == "__main__":
    command(Path(sys.argv[2])) if sys.argv[1:] else main()
