"""Stage tune with the run on an S3 server: a killed worker, and what is stored."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

from toy_pairs import kill_a_worker, make_policy, pair_rows, rows_of, write_pairs_stage
from upath import UPath

from pipelines import tune
from pipelines.recipes import svpo
from vgs_ray.config import ReferencePolicy
from vgs_ray.data.files import download_folder
from vgs_ray.data.storage import list_files
from vgs_ray.value.policy_value import PolicyValueModel

STEPS = 24


def test_a_killed_worker_on_an_object_store(s3_ray: UPath, tmp_path: Path) -> None:
    base = svpo()
    config = replace(
        base.tune, max_length=16, batch_size=8, paths=8, micro_batch=4, epochs=STEPS // 4, checkpoint_every=3, validate_every=8,
        workers=2,
    )  # fmt: skip
    policy = ReferencePolicy(make_policy(tmp_path / "policy"))
    recipe = replace(base, root=str(s3_ray), policy=policy, tune=config)
    write_pairs_stage(recipe, pair_rows())
    folder = recipe.stage_folder("tune")
    killed_at: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(folder / "metrics.jsonl", killed_at), daemon=True)
    killer.start()
    tune.run(recipe)
    assert killed_at
    assert killed_at[0] < STEPS
    rows = rows_of(folder / "metrics.jsonl")
    assert {row["step"] for row in rows} == set(range(1, STEPS + 1))
    manifest = json.loads((folder / "_stage.json").read_text())["counts"]
    assert (manifest["steps"], manifest["validation"]["step"]) == (STEPS, STEPS)
    assert manifest["validation"]["validation_dpo_accuracy"] > 0.8
    stored = {name.partition("/")[0] for name in list_files(folder)}
    assert stored.isdisjoint({"store", "checkpoints"})
    download_folder(folder / "model", tmp_path / "model")
    assert PolicyValueModel.from_pretrained(tmp_path / "model").head_config.dropout == config.dropout
