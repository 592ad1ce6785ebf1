"""Whether recipes fit clusters: the shipped pair does, and wrong clusters are told with a remedy that works."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import parse
from pipelines.plan import config_of
from pipelines.planning.cluster_file import read_cluster
from pipelines.planning.demands import demands_of
from pipelines.planning.fit import StageFit, fit, misfit_lines, note_lines
from pipelines.recipes import vgs
from vgs_ray.config import PlanAssumptions, Recipe
from vgs_ray.errors import UserError
from vgs_ray.evaluate.engine_memory import GIB
from vgs_ray.value.training.memory import training_bytes, value_model_weights

FILE = Path(__file__).parents[2] / "cluster.yaml"
Change = Callable[[dict[str, Any]], None]


def fitted(recipe: Recipe, path: Path) -> tuple[list[StageFit], list[str]]:
    cluster = read_cluster(str(path), recipe.plan)
    fits = fit(recipe, {"roll_in": 64.0, "train": 64.0}, cluster, config_of)
    return fits, list(note_lines(fits, cluster.groups))


def changed(tmp_path: Path, change: Change) -> Path:
    content = yaml.safe_load(FILE.read_text())
    change(content["available_node_types"])
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_shipped_recipe_uses_the_whole_shipped_cluster() -> None:
    fits, notes = fitted(vgs(), FILE)
    assert (misfit_lines(fits), notes) == ([], [])
    used = {each.stage: each.placement.nodes for each in fits}
    assert used["roll_in"] == used["roll_out"] == {"gpu_policy": 16}
    assert used["train"] == used["evaluate"] == {"gpu_value": 8}
    assert used["serve"] == {"gpu_value": 1}
    assert used["clean"] == used["verify"] == used["label"] == {"cpu": 1}


def test_hours_are_those_of_the_gpus_and_dollars_those_of_the_nodes() -> None:
    fits = {each.stage: each for each in fitted(vgs(), FILE)[0]}
    assert fits["train"].hours == pytest.approx(1.0)
    assert fits["train"].dollars == pytest.approx(8 * 55.04)
    # The largest model has half of the GPUs and more than half of the work; an L40S has 362 of the 989 TFLOP/s of an H100.
    assert fits["roll_in"].hours is not None
    assert 989 / 362 < fits["roll_in"].hours < 1.3 * 989 / 362
    assert fits["roll_in"].dollars == pytest.approx(fits["roll_in"].hours * 16 * 10.49 / 2)


def set_of(group: str, **fields: Any) -> Change:
    return lambda groups: groups[group].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            set_of("gpu_policy", resources={"CPU": 48, "GPU": 2}),
            r"generators.3.resources: .* 4 GPUs are more than one node of",
        ),
        (set_of("gpu_value", max_workers=4), r"train: 32 of 64 fit on the nodes of gpu_value; .*--train.workers"),
        (set_of("gpu_policy", max_workers=8), r"roll_out.resources: 32 of 64 .*--roll-out.resources.replicas"),
        (set_of("gpu_value", labels={}), r"train: no group has the labels ray.io/accelerator-type=H100"),
        (set_of("cpu", max_workers=0), r"tasks of stage clean: 0 of 1 fit on the nodes of cpu"),
    ],
)
def test_a_cluster_that_is_too_small_is_told(tmp_path: Path, change: Change, words: str) -> None:
    lines = "\n".join(misfit_lines(fitted(vgs(), changed(tmp_path, change))[0]))
    assert re.search(words, lines), lines


def test_engines_that_do_not_fit_their_gpus_are_told_and_the_remedy_works() -> None:
    whole = [
        "--roll-in.generators.2.engine.tensor-parallel-size",
        "1",
        "--roll-in.generators.2.resources.num-gpus",
        "1",
    ]
    lines = misfit_lines(fitted(parse("pipelines.plan", ["vgs", *whole]), FILE)[0])
    assert len(lines) == 1
    assert "generators.2.resources: the weights and the cache" in lines[0]
    assert "need GPUs with 87 GiB, and those of gpu_policy have at most 45" in lines[0]
    fewer = [*whole, "--plan.sequences", "3"]
    assert not misfit_lines(fitted(parse("pipelines.plan", ["vgs", *fewer]), FILE)[0])


def test_training_that_does_not_fit_its_gpus_is_told_and_the_remedy_works() -> None:
    def line(*options: str) -> str:
        larger = ["vgs", "--train.init", vgs().roll_in.generators[2].model, *options]
        lines = misfit_lines(fitted(parse("pipelines.plan", larger), FILE)[0])
        return "".join(each for each in lines if each.startswith("train:"))

    told = line("--train.shard-size", "2")
    assert "need GPUs with about 168 GiB, and those of gpu_value have at most 80" in told
    assert line() == line("--train.shard-size", "8")  # by default, the workers of a node share a copy
    assert line() != line("--train.shard-size", "64")
    assert not line("--train.shard-size", "64", "--train.reshard")


def test_planning_and_training_estimate_the_same_memory() -> None:
    """The workers of nodes with 8 GPUs: 64 of them, 12 of them, and 8 of which each has two GPUs."""
    for workers, gpus, shared in ((64, 1.0, 8), (12, 1.0, 4), (8, 2.0, 4)):
        train = replace(vgs().train, workers=workers, gpus_per_worker=gpus)
        [demand] = demands_of(
            replace(vgs(), train=train), "train", config_of, read_cluster(str(FILE), vgs().plan).groups
        )
        weights = value_model_weights(config_of(train.init), 0)
        assert demand.gpu_gib * GIB == training_bytes(config_of(train.init), weights, train, shared, "checkpoint")


def test_idle_nodes_and_free_choices_are_told(tmp_path: Path) -> None:
    recipe = parse("pipelines.plan", ["vgs", "--roll-out.resources.nodes", "ray.io/accelerator-type=in(L40S,H100)"])
    _, notes = fitted(recipe, changed(tmp_path, set_of("gpu_value", max_workers=9)))
    assert "gpu_value: at most 8 of 9 nodes are used at a time" in notes
    fields = "roll_out.resources, tasks of stage roll_out"
    assert f"Ray chooses among gpu_policy, gpu_value for {fields}; nodes and cpu_nodes restrict it" in notes


@pytest.mark.parametrize(
    "text", ["", "available_node_types: 3", "a: [", "available_node_types: {a: {}}\nhead_node_type: b"]
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match="pass another --cluster"):
        read_cluster(str(tmp_path / "c.yaml"), PlanAssumptions())


def test_a_price_must_be_a_number() -> None:
    with pytest.raises(UserError, match=r"plan.prices is p5; .*pass another --plan.prices"):
        read_cluster(str(FILE), PlanAssumptions(prices=("p5",)))


def test_the_command_fails_if_a_stage_has_no_nodes(tmp_path: Path) -> None:
    path = changed(tmp_path, set_of("gpu_value", max_workers=4))
    command = [sys.executable, "-m", "pipelines.plan", "vgs", "--root", str(tmp_path / "runs"), "--cluster", str(path)]
    done = subprocess.run(command, cwd=FILE.parent, capture_output=True, text=True)
    assert done.returncode == 2
    assert "train: 32 of 64 fit" in done.stdout
    assert done.stderr.startswith("error: vgs does not fit")
