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

from pipelines.train import build_store, trainer
from vgs_ray.config import Recipe, Train

SETTINGS: Train = replace(
    CONFIG, steps=60, dropout=0.0, attention_dropout=0.0,
    workers=2, min_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, checkpoint_every=5,
    timeout_s=30, trackers=(),
)  # fmt: skip
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.mark.slow  # about a minute: two raylets, three worker starts, and the time Ray needs to detect a lost node
def test_a_lost_node_does_not_stop_training_or_change_the_data(
    no_ray: None, backbone: str, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10"
    )  # Ray may still schedule on the lost node for a moment
    recipe = Recipe("toy", root=str(tmp_path), train=replace(SETTINGS, init=backbone))
    for stage in ("label", "roll_in", "roll_out"):
        shutil.copytree(tables / stage, recipe.folder / stage)
    log = recipe.folder / "train/metrics.jsonl"
    log.parent.mkdir(parents=True)
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    lost = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        build_store(recipe, recipe.folder / "train/store")

        def kill() -> None:
            while not log.exists() or len(log.read_text().splitlines()) < 12:
                time.sleep(0.1)
            cluster.remove_node(lost, allow_graceful=False)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        assert trainer(recipe).fit().return_value == ""
        assert not killer.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["workers"] for row in rows} == {1, 2}
    losses = {row["step"]: row["loss"] for row in rows}
    whole = run(backbone, tables, tmp_path / "whole", replace(SETTINGS, min_workers=0))
    assert [losses[step] for step in range(1, 61)] == pytest.approx(whole, abs=1e-5)
    for row in rows:  # repeated steps have the same loss
        assert row["loss"] == pytest.approx(whole[row["step"] - 1], abs=1e-5)
