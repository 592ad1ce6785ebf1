"""SamplingActor and the blocks that it commits: retries, rows that fail, engines that die, displaced writers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY_ENGINE

from pipelines.actors.block_journal import BATCHED_ATTEMPTS, Attempts, BlockJournal
from pipelines.actors.engine_start import start_slot
from pipelines.actors.sampling import Guide, SamplingActor, Totals
from pipelines.roll_in import concurrent_groups
from pipelines.tables.stage_table import Displaced, StageTable
from vgs_ray.config import Beam, Generator, Resources, Sampling
from vgs_ray.data.schemas import ROLL_OUT_REQUESTS, ROLL_OUTS
from vgs_ray.data.storage import storage_path
from vgs_ray.engines.step_times import StepTimes
from vgs_ray.errors import UserError
from vgs_ray.labels.outcomes import cut_positions
from vgs_ray.search.explore import beam

KEYS = [f"row-{i}" for i in range(6)]


def finished_row(key: str) -> dict[str, Any]:
    known = {"roll_out_id": key, "roll_in_id": "r", "problem_id": "p", "policy": "tiny", "cut": 0, "seed": 1}
    return {**known, "tokens": [3, 4], "finish_reason": "stop", "sampling": "{}", "engine": "vllm", "error": None}


def table_in(folder: Path) -> StageTable:
    return StageTable(storage_path(folder), "", "roll_outs", "roll_out_id")


def table(keys: list[str]) -> pa.Table:
    return pa.Table.from_pylist([finished_row(key) for key in keys], schema=ROLL_OUTS)


def keys_of(parts: StageTable) -> list[str]:
    return sorted(parts.read([parts.key])[parts.key].to_pylist())


class Killed(BaseException): ...


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6), kill_at=st.integers(0, 12))
def test_block_killed_at_any_file_operation_is_completed_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], kill_at: int
) -> None:
    parts = table_in(tmp_path_factory.mktemp("block"))

    def work() -> None:
        journal = BlockJournal(parts, KEYS)
        journal.begin_attempt()
        left = [key for key in KEYS if key not in journal.committed_ids()]
        for size in sizes:
            journal.commit(table(left[:size]))
            left = left[size:]
        journal.commit(table(left))
        journal.merge()

    operations = 0
    replace, unlink = os.replace, os.unlink

    def counted(operation: Any) -> Any:
        def act(*arguments: Any, **options: Any) -> Any:
            nonlocal operations
            operations += 1
            if operations == kill_at:
                raise Killed
            return operation(*arguments, **options)

        return act

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted(replace))
        patch.setattr(os, "unlink", counted(unlink))
        try:
            work()
        except Killed:
            seen = keys_of(parts)
            assert len(seen) == len(set(seen)), "a reader saw a row twice"
    work()
    assert keys_of(parts) == KEYS
    assert parts.count_rows() == len(KEYS)


def test_displaced_writer_cannot_write(tmp_path: Path) -> None:
    old = table_in(tmp_path).claim()
    new = old._replace(writer="").claim()
    new.write_part(table(["a"]))
    with pytest.raises(Displaced):
        old.write_part(table(["b"]))
    assert keys_of(new) == ["a"]


def requests(count: int, too_long: int | None = None) -> pa.Table:
    rows = [
        {name: value for name, value in finished_row(f"row-{i}").items() if name in ROLL_OUT_REQUESTS.names}
        | {"prefix": [5, 6, 7 + i] if i != too_long else [5] * 300, "max_tokens": 12}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=ROLL_OUT_REQUESTS)


@pytest.fixture(scope="module")
def actor(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SamplingActor:
    """The actor's class in this process, with a real engine."""
    out = table_in(tmp_path_factory.mktemp("out"))
    made = SamplingActor(str(policy_folder), TINY_ENGINE, Resources(), Sampling(1.0, 1.0, 12), out)
    yield made
    made.policy.close()


def test_failed_row_has_an_error_and_the_others_are_sampled(actor: SamplingActor, tmp_path: Path) -> None:
    actor.out = table_in(tmp_path)
    counts = asyncio.run(actor(requests(4, too_long=2))).to_pylist()[0]
    rows = {row["roll_out_id"]: row for row in actor.out.read().to_pylist()}
    assert counts["rows"] == 4
    assert counts["errors"] == 1
    assert "300 tokens" in rows["row-2"]["error"]
    assert rows["row-2"]["finish_reason"] == "error"
    assert all(rows[f"row-{i}"]["tokens"] and rows[f"row-{i}"]["engine"].startswith("vllm") for i in (0, 1, 3))
    assert counts["generated"] == sum(len(row["tokens"]) for row in rows.values())


def test_retried_block_generates_only_what_is_not_committed(actor: SamplingActor, tmp_path: Path) -> None:
    actor.out = table_in(tmp_path)
    batch = requests(5)
    BlockJournal(actor.out, batch["roll_out_id"].to_pylist()).commit(table(["row-1", "row-3"]))
    assert asyncio.run(actor(batch)).to_pylist()[0]["rows"] == 3
    rows = {row["roll_out_id"]: row for row in actor.out.read().to_pylist()}
    assert sorted(rows) == [f"row-{i}" for i in range(5)]
    assert rows["row-1"]["tokens"] == [3, 4]


def test_tokens_depend_on_the_seed_and_not_on_the_batch(actor: SamplingActor, tmp_path: Path) -> None:
    texts = []
    for name, order in (("a", [0, 1, 2, 3]), ("b", [3, 1])):
        (tmp_path / name).mkdir()
        actor.out = table_in(tmp_path / name)
        asyncio.run(actor(requests(4).take(order)))
        texts.append({row["roll_out_id"]: row["tokens"] for row in actor.out.read().to_pylist()})
    assert {key: texts[0][key] for key in texts[1]} == texts[1]


def test_a_guided_roll_in_is_the_answer_with_the_highest_value(
    policy_folder: Path, value_folder: Path, tmp_path: Path
) -> None:
    shape, sampling = Beam(keep=1, branch=2, block=4, groups=3), Sampling(1.0, 1.0, 12)
    guide, out = Guide(shape, str(value_folder), TINY_ENGINE), table_in(tmp_path)
    guided = SamplingActor(str(policy_folder), TINY_ENGINE, Resources(), sampling, out, guide)
    asyncio.run(guided(requests(3)))
    made = {row["roll_out_id"]: row for row in out.read().to_pylist()}
    assert guided.value is not None
    for asked in requests(3).to_pylist():
        prompt, row = tuple(asked["prefix"]), made[asked["roll_out_id"]]
        tree = asyncio.run(beam(guided.policy, guided.value, prompt, beam=shape, sampling=sampling, seed=asked["seed"]))
        leaves = [leaf for leaf in tree.leaves() if leaf.state == "finished"] or tree.leaves()
        best = max(leaves, key=lambda leaf: leaf.value or 0.0)
        assert tuple(row["tokens"]) == tree.path(best.id)
        assert row["finish_reason"] == ("stop" if best.state == "finished" else "length")
    assert len(made) == 3
    assert json.loads(out.read()["sampling"][0].as_py())["search"]["groups"] == 3
    guided.policy.close()
    guided.value.close()


def test_row_that_killed_its_engine_alone_becomes_an_error(actor: SamplingActor, tmp_path: Path) -> None:
    actor.out = table_in(tmp_path)
    batch = requests(3)
    journal = BlockJournal(actor.out, batch["roll_out_id"].to_pylist())
    for _ in range(BATCHED_ATTEMPTS):
        journal.begin_attempt()
    journal.record_alone("row-1")  # the engine died at this point
    asyncio.run(actor(batch))
    rows = {row["roll_out_id"]: row for row in actor.out.read().to_pylist()}
    assert [rows[f"row-{i}"]["error"] is None for i in range(3)] == [True, False, True]
    assert "ran alone" in rows["row-1"]["error"]
    assert journal.begin_attempt() == Attempts(0, None), "a merged block has no record of attempts"


DYING = """
import asyncio, sys
from pathlib import Path
import pipelines.actors.sampling as sampling
from tiny import TINY_ENGINE
from test_sampling_actor import requests, table_in
from vgs_ray.config import Resources, Sampling

sampling.COMMIT_S = 0.05
out = table_in(Path(sys.argv[2]))
actor = sampling.SamplingActor(sys.argv[1], TINY_ENGINE, Resources(), Sampling(1.0, 1.0, 200), out)
step, left = actor.policy.loop.engine.step, [100]

def dies():
    left[0] -= 1
    if not left[0]:
        raise RuntimeError("CUDA error: device-side assert triggered")
    return step()

actor.policy.loop.engine.step = dies
batch = requests(6).set_column(requests(6).schema.get_field_index("max_tokens"), "max_tokens", [[5, 5, 5, 190, 190, 190]])
asyncio.run(actor(batch.cast(requests(1).schema)))
"""


@pytest.mark.timeout(180)
def test_actor_whose_engine_dies_ends_and_keeps_finished_rows(policy_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(DYING), str(policy_folder), str(tmp_path)]
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, [tests.parent, tests / "support", Path(__file__).parent]))
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "this actor ends" in done.stdout, done.stderr
    assert {"row-0", "row-1", "row-2"} <= set(keys_of(table_in(tmp_path)))


def test_error_share_over_the_limit_ends_the_stage() -> None:
    block = {"rows": 100, "errors": 3, "generated": 9, "prefilled": 1, "cached": 0, "began": 0.0, "ended": 1.0}
    block |= vars(StepTimes())

    class Blocks:
        def iter_rows(self) -> list[dict[str, float]]:
            return [block, block, block]

    Totals("roll_out", max_error_share=0.05).run(Blocks())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="6 of 200 rows failed"):
        Totals("roll_out", max_error_share=0.02).run(Blocks())  # type: ignore[arg-type]


def test_engines_of_one_machine_wait_for_their_start_slot() -> None:
    code = (
        "from pipelines.actors.engine_start import start_slot; from vgs_ray.config import Resources\n"
        "with start_slot(Resources(starts_at_once=1)): print('started', flush=True)"
    )
    with start_slot(Resources(starts_at_once=1)):
        waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=8)
    assert waiting.communicate(timeout=30)[0] == "started\n"


def test_generators_that_do_not_fit_together_run_one_after_another() -> None:
    large = Resources(num_gpus=4, replicas=1)
    generators = (Generator("a", "m"), Generator("b", "m"), Generator("c", "m", resources=large))
    default = Resources(num_gpus=1, replicas=2)
    assert [[g.name for g in group] for group in concurrent_groups(generators, default, gpus=8)] == [["a", "b", "c"]]
    assert [[g.name for g in group] for group in concurrent_groups(generators, default, gpus=4)] == [["a", "b"], ["c"]]
    cpu = Resources(num_gpus=0)
    assert len(concurrent_groups(generators[:2], cpu, gpus=0)) == 1


@given(length=st.integers(0, 500), cuts=st.integers(1, 8), seed=st.integers(0, 2**31 - 1))
def test_fan_has_one_position_and_cuts_have_as_many_as_asked(length: int, cuts: int, seed: int) -> None:
    fan = cut_positions(length, cuts, "sqrt", seed, "fan")
    several = cut_positions(length, cuts, "sqrt", seed)
    assert len(fan) == len(several) == cuts
    assert len(set(fan)) == 1
    assert all(0 <= position <= max(length - 1, 0) for position in fan + several)
