"""What may change when a stage is restarted: resources, tolerated errors, workers and uploads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_run import write_run
from toy import CONFIG, run

from pipelines import roll_out, train
from pipelines.progress import error_counts
from pipelines.recipes import sandbox
from pipelines.tables.progress_record import read_record
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Engine, Label, Recipe, ReferencePolicy, Resources, Sampling
from vgs_ray.data.ids import roll_in_id
from vgs_ray.errors import UserError
from vgs_ray.models import RANDOM
from vgs_ray.sandbox import policy_path

ROLL_INS, TOO_LONG, CUTS = 110, 8, 2
"""Roll-ins, and those among them whose prompt fills the context, so that their roll-outs fail."""
CPU = Resources(num_cpus=0.25, num_gpus=0.0)


def manifest(recipe: Recipe, stage: str) -> dict[str, dict[str, object]]:
    return json.loads((recipe.folder / stage / "_stage.json").read_text())


def with_roll_ins(root: Path, resources: Resources, max_error_share: float) -> Recipe:
    """A run with roll-ins and no roll-outs yet."""
    base = sandbox()
    sampling, engine = replace(base.roll_out.sampling, max_tokens=40), replace(base.roll_out.engine, max_model_len=64)
    recipe = replace(
        base, root=str(root), roll_in=replace(base.roll_in, sampling=sampling, engine=engine),
        roll_out=replace(
            base.roll_out, cuts=CUTS, sampling=sampling, engine=engine, resources=resources, max_error_share=max_error_share
        ),
    )  # fmt: skip
    if (recipe.folder / "roll_in").exists():  # written before
        return recipe
    rows = [
        {"roll_in_id": roll_in_id(f"p{at}", "ref", 0), "problem_id": f"p{at}", "policy": "ref", "seed": at,
         "prompt": [5] * (70 if at < TOO_LONG else 8), "tokens": [10 + at % 20] * 12, "finish_reason": "stop",
         "sampling": "{}", "engine": "none"}
        for at in range(ROLL_INS)
    ]  # fmt: skip
    stage, table = open_stage(recipe, "roll_in", ()), stage_table(recipe, "roll_in")
    assert stage is not None
    table.write_part(pa.Table.from_pylist(rows, schema=table.schema))
    stage.publish(table, in_this_process)
    stage.close(rows=len(rows))
    return recipe


def rows_by_id(recipe: Recipe) -> dict[str, tuple[object, ...]]:
    rows = stage_table(recipe, "roll_out").read().to_pylist()
    return {row["roll_out_id"]: (row["seed"], row["tokens"], row["finish_reason"]) for row in rows}


@pytest.mark.timeout(300)
def test_interrupted_roll_outs_continue_with_other_resources_and_more_tolerated_errors(
    local_ray: None, tmp_path: Path
) -> None:
    stopped = with_roll_ins(tmp_path, CPU, 0.02)
    with pytest.raises(UserError, match=r"roll_out\.max_error_share is 0\.02; .* higher --roll-out\.max-error-share"):
        roll_out.run(stopped)
    whole = rows_by_id(stopped)
    first, *_ = stage_table(stopped, "roll_out").files()
    first.unlink()
    assert 0 < len(rows_by_id(stopped)) < len(whole) == ROLL_INS * CUTS
    continued = with_roll_ins(tmp_path, replace(CPU, replicas=2, num_cpus=0.5, starts_at_once=1), 0.5)
    engine = replace(continued.roll_out.engine, kv_cache_gib=0.125, max_num_seqs=32)
    continued = replace(continued, roll_out=replace(continued.roll_out, engine=engine))
    roll_out.run(continued)
    assert rows_by_id(continued) == whole
    check_record(continued)
    started = json.loads((continued.folder / "roll_out" / "_started.json").read_text())
    assert started["operation"] == manifest(continued, "roll_out")["operation"] == continued.operation("roll_out")
    assert started["operation"]["roll_out.resources.replicas"] == 2
    other = replace(continued.roll_out, sampling=replace(continued.roll_out.sampling, temperature=0.5))
    with pytest.raises(UserError, match=r"roll_out\.sampling\.temperature was 1\.0 and is now 0\.5"):
        roll_out.run(replace(continued, roll_out=other))


def check_record(recipe: Recipe) -> None:
    """The record that `pipelines.status` reads has the rows and errors of the table after both commands."""
    record, out = read_record(recipe.stage_folder("roll_out")), stage_table(recipe, "roll_out")
    assert record
    assert record.rows == out.count_rows()
    assert record.work.errors == error_counts(out)
    assert sum(record.work.errors.values()) == TOO_LONG * CUTS
    assert record.work.tokens["generated"] >= sum(len(tokens) for _, tokens, _ in rows_by_id(recipe).values())


@pytest.fixture
def toy_run(backbone: str, tables: Path, tmp_path: Path) -> Recipe:
    """Tables that training reads, and a recipe for one worker."""
    config = replace(
        CONFIG, init=backbone, steps=12, dropout=0.0, attention_dropout=0.0, workers=1, cpus_per_worker=0.5, gpus_per_worker=0.0,
        max_failures=0, trackers=(),
    )  # fmt: skip
    short = replace(Recipe("toy").roll_out, engine=Engine(max_model_len=64), sampling=Sampling(max_tokens=40))
    recipe = Recipe(
        "toy",
        root=str(tmp_path),
        policy=ReferencePolicy("sandbox:ref"),
        train=config,
        roll_out=short,
        roll_in=replace(Recipe("toy").roll_in, sampling=short.sampling),
    )
    for stage in ("roll_in", "roll_out", "label"):
        opened, table = open_stage(recipe, stage, ()), stage_table(recipe, stage)
        assert opened is not None
        table.write_part(pq.read_table(tables / stage))
        opened.close(rows=opened.publish(table, in_this_process).count_rows())
    return recipe


def interrupt_after(steps: int, log: Path) -> None:
    """Send this process what Ctrl-C sends, as soon as training has logged so many steps."""
    while not log.exists() or len(log.read_text().splitlines()) < steps:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.timeout(300)
def test_interrupted_training_continues_with_another_number_of_workers(
    local_ray: None, toy_run: Recipe, backbone: str, tables: Path, tmp_path: Path
) -> None:
    folder = toy_run.folder / "train"
    train.run(replace(toy_run, train=replace(toy_run.train, checkpoint_every=4, checkpoints_kept=3)))
    (folder / "_stage.json").unlink()  # as if it had been interrupted after its fourth step
    for later in ("step-0000008", "step-0000012"):
        shutil.rmtree(folder / "checkpoints" / later)
    more = replace(toy_run, train=replace(toy_run.train, workers=2))
    train.run(more)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if row["workers"] == 2} == set(range(5, 13))
    losses = {row["step"]: row["loss"] for row in rows}
    whole = run(backbone, tables, tmp_path / "whole", toy_run.train)
    assert [losses[step] for step in range(1, 13)] == pytest.approx(whole, abs=1e-5)
    assert manifest(more, "train")["operation"]["train.workers"] == 2


@pytest.mark.timeout(300)
def test_ctrl_c_interrupts_training_and_later_stages(local_ray: None, toy_run: Recipe) -> None:
    endless = replace(toy_run, train=replace(toy_run.train, steps=100_000))
    log = endless.folder / "train" / "metrics.jsonl"
    threading.Thread(target=interrupt_after, args=(4, log), daemon=True).start()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train.run(endless)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (endless.folder / "train" / "_stage.json").exists()


def test_a_finished_model_may_be_pushed_later(toy_run: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[tuple[Path, str]] = []
    monkeypatch.setattr(train, "push_to_hub", lambda folder, name: pushed.append((folder, name)))
    stage = open_stage(toy_run, "train", ("roll_in", "roll_out", "label"))
    assert stage is not None
    stage.close()
    train.run(toy_run)
    assert not pushed
    later = replace(toy_run, train=replace(toy_run.train, push_to="me/my-model", trackers=("mlflow",)))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        train.run(later)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    train.run(later)
    assert pushed == [(toy_run.folder / "train" / "value_model", "me/my-model")]


def test_an_evaluation_of_another_policy_is_not_skipped(tmp_path: Path) -> None:
    """With a value model of its own, an evaluation reads no other stage."""
    folder = tmp_path / "policy"
    shutil.copytree(policy_path("ref"), folder)
    base = sandbox()
    recipe = replace(
        base,
        root=str(tmp_path),
        policy=ReferencePolicy(str(folder)),
        evaluate=replace(base.evaluate, value_model=RANDOM),
    )
    stage = open_stage(recipe, "evaluate", ())
    assert stage is not None
    stage.close()
    assert open_stage(recipe, "evaluate", ()) is None
    assert (
        open_stage(replace(recipe, policy=ReferencePolicy("sandbox:ref")), "evaluate", ()) is None
    )  # the same content
    with pytest.raises(
        UserError, match=r"policy\.model was .*, content:.* and is now \"sandbox:weak, content:.*--run-name"
    ):
        open_stage(replace(recipe, policy=ReferencePolicy("sandbox:weak")), "evaluate", ())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"policy\.model was "):
        open_stage(recipe, "evaluate", ())


def test_a_manifest_of_an_earlier_version_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label())
    path = recipe.folder / "roll_out" / "_stage.json"
    former = json.loads(path.read_text())
    former["config"] = former.pop("identity") | former.pop("operation")
    path.write_text(json.dumps(former))
    with pytest.raises(UserError, match=r"earlier version of vgs_ray.*--run-name"):
        roll_out.run(recipe)
