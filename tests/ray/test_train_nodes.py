"""Training on two Ray nodes (raylets on this machine), one of which is killed during training."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from toy import CONFIG, run
from upath import UPath

from pipelines.tables.token_store import token_store
from pipelines.train import prepare, trainer
from vgs_ray.config import Recipe, Train
from vgs_ray.data.files import read_end, upload_folder
from vgs_ray.data.storage import AnyPath, is_local, list_files

SETTINGS: Train = replace(
    CONFIG, steps=60, dropout=0.0, attention_dropout=0.0,
    workers=4, min_workers=2, cpus_per_worker=0.5, gpus_per_worker=0.0, checkpoint_every=5,
    timeout_s=30, trackers=(),
)  # fmt: skip
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.mark.slow  # about 90 seconds: two raylets, six worker starts, and the time Ray needs to detect a lost node
def test_a_lost_node_does_not_stop_training_or_change_the_data(
    no_ray: None, backbone: str, tables: Path, tmp_path: Path, any_root: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes have temporary folders and homes of their own. On an object store they have no common folder for the run.

    Each node has two workers and a copy of the weights, which they share.
    """
    monkeypatch.setenv(
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30"
    )  # Ray may still schedule on the lost node for a moment
    recipe = Recipe("toy", root=str(any_root), train=replace(SETTINGS, init=backbone))
    for stage in ("label", "roll_in", "roll_out"):
        copy_folder(tables / stage, recipe.folder / stage)
    log = recipe.stage_folder("train") / "metrics.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    places = [tmp_path / "first", tmp_path / "second"]
    head = {
        "num_cpus": 1,
        "include_dashboard": False,
        "_system_config": FAST_HEALTH_CHECKS,
        "env_vars": own_folders(places[0]),
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    lost = cluster.add_node(num_cpus=1, env_vars=own_folders(places[1]))
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        store = token_store(recipe)
        steps = prepare(recipe, store).steps
        stores: list[int] = []

        def kill() -> None:
            while len(read_end(log).splitlines()) < 12:
                time.sleep(0.1)
            stores.extend(len(list(place.rglob("index-train.arrow"))) for place in places)
            cluster.remove_node(lost, allow_graceful=False)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        assert trainer(recipe, store).fit().return_value == ""
        assert not killer.is_alive()
        store.remove()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert steps == 60
    assert stores == [1, 1]
    assert not list(places[0].rglob("*.arrow"))
    rows = [json.loads(line) for line in read_end(log).splitlines()]
    assert {row["workers"] for row in rows} == {2, 4}
    losses = {row["step"]: row["loss"] for row in rows}
    whole = run(backbone, tables, tmp_path / "whole", replace(SETTINGS, min_workers=0))
    assert [losses[step] for step in range(1, 61)] == pytest.approx(whole, abs=1e-5)
    for row in rows:  # repeated steps have the same loss
        assert row["loss"] == pytest.approx(whole[row["step"] - 1], abs=1e-5)
    assert {"config.json", "model.safetensors"} <= list_files(recipe.stage_folder("train") / "value_model").keys()
    if not is_local(recipe.folder):
        assert not [path for path in tmp_path.rglob("*") if path.name == "toy"]


def own_folders(place: Path) -> dict[str, str]:
    """The environment of a node that shares neither its temporary folder nor its home."""
    (place / "tmp").mkdir(parents=True)
    return {"TMPDIR": str(place / "tmp"), "HOME": str(place)}


def copy_folder(source: Path, target: AnyPath) -> None:
    if is_local(target):
        shutil.copytree(source, target)
    else:
        upload_folder(source, target)
