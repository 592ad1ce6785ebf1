"""Recipe vgs, an eighth of its size, on node groups that an autoscaler starts from nothing. Prints as JSON where it ran.

Usage: python placed_run.py GROUPS ROOT, with a JSON file of node types. Engines are scripted, and the model is tiny.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import placed_workers
import ray
from autoscaled_cluster import ADDRESS, AutoscaledCluster, live_groups
from namespaces import in_namespaces
from placed_workers import WORKER, read_notes
from ray.train.torch import TorchConfig

from pipelines import serve, train
from pipelines.actors import training
from pipelines.placement import NodeNeed, check_nodes
from pipelines.recipes import vgs
from pipelines.run import MODULES
from pipelines.session import ray_session
from vgs_ray.config import Clean, Engine, Generator, Recipe, ReferencePolicy, Resources, Sampling
from vgs_ray.errors import UserError

SHARE = 8
MODEL, PROBLEM = "sandbox:ref", "Work modulo 19. Start with 3."
ENGINE = Engine(max_model_len=512, max_num_seqs=16)  # so few sequences that each actor takes only two blocks at a time
SAMPLING = Sampling(max_tokens=64)


def fewer(resources: Resources) -> Resources:
    return replace(resources, replicas=max(1, resources.replicas // SHARE))


def small_vgs(root: Path) -> Recipe:
    """Recipe vgs with its nodes and the shapes of its actors, but fewer of them, and the sandbox's problems and model."""
    whole = vgs()

    def small(generator: Generator) -> Generator:
        engine = replace(ENGINE, tensor_parallel_size=(generator.engine or ENGINE).tensor_parallel_size)
        return replace(generator, model=MODEL, engine=engine, resources=fewer(generator.resources or Resources()))

    return replace(
        whole,
        root=str(root),
        policy=ReferencePolicy(MODEL),
        clean=Clean(source="sandbox", limit=60, validation=5, test=0, exclude=("sandbox",), contamination=0.7, workers=4),
        roll_in=replace(whole.roll_in, generators=tuple(map(small, whole.roll_in.generators)), sampling=SAMPLING),
        roll_out=replace(whole.roll_out, sampling=SAMPLING, engine=ENGINE, resources=fewer(whole.roll_out.resources)),
        verify=replace(whole.verify, workers=4),
        label=replace(whole.label, hopeless_share=1.0),
        train=replace(
            whole.train, workers=whole.train.workers // SHARE, init=MODEL, steps=2, batch_size=16, micro_tokens=1024,
            compile=False,
        ),
        evaluate=replace(
            whole.evaluate, benchmarks=("sandbox",), limit=16, samples=8, budgets=(8,), bootstrap=100,
            beam=replace(whole.evaluate.beam, groups=1), sampling=SAMPLING, resources=fewer(whole.evaluate.resources),
            policy_engine=replace(ENGINE, gpu_memory_utilization=0.5), value_engine=replace(ENGINE, gpu_memory_utilization=0.4),
        ),
        serve=replace(
            whole.serve, sampling=SAMPLING, policy_engine=ENGINE, value_engine=ENGINE,
            policy_resources=fewer(whole.serve.policy_resources), value_resources=fewer(whole.serve.value_resources),
        ),
    )  # fmt: skip


def refusal(need: NodeNeed) -> str:
    """What the check of a stage says about nodes that no group can have."""
    with ray_session():
        try:
            check_nodes(need)
        except UserError as error:
            return str(error)
    return ""


def place(what: str, work: Callable[[], Any], folder: Path) -> None:
    """Do some work, and print where. It has a Ray session of its own, so it shares no worker process with others."""
    began, before = time.monotonic(), set(read_notes(folder))
    result, seconds = work(), round(time.monotonic() - began, 1)
    notes = [each for each in read_notes(folder) if each not in before]
    group_of = {f"worker:{each.worker}": each.group for each in notes if each.kind == WORKER}
    tasks: dict[str, set[str]] = {}
    with ray_session():
        nodes = live_groups()
        for event in ray.timeline():
            if event.get("tid") in group_of and event["cat"].startswith("task::"):
                tasks.setdefault(group_of[event["tid"]], set()).add(event["cat"].removeprefix("task::"))
    held = Counter((each.kind, each.group, each.gpus) for each in notes if each.kind in placed_workers.HOLDERS)
    report = {
        "what": what, "result": result, "seconds": seconds, "nodes": nodes,
        "held": sorted([*key, count] for key, count in held.items()),
        "tasks": {group: sorted(names) for group, names in tasks.items()},
    }  # fmt: skip
    print(json.dumps(report), flush=True)


def main() -> None:
    in_namespaces({})
    groups, root = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    places = root / "places"
    places.mkdir()
    recipe = small_vgs(root)
    training.train_worker = placed_workers.train_on_cpu
    train.TorchConfig = partial(TorchConfig, backend="gloo")  # type: ignore[attr-defined, assignment]  # NCCL needs GPUs
    context = ray.data.DataContext.get_current()
    context.read_op_min_num_blocks = context.default_hash_shuffle_parallelism = 8  # 200 are too many for so few rows
    needs = {
        "another type": NodeNeed("train", 1.0, 8.0, ("ray.io/accelerator-type=B200",)),
        "too many GPUs": NodeNeed("roll_out.resources", 2.0, 8.0, ("ray.io/accelerator-type=L40S",)),
    }
    AutoscaledCluster(groups, {placed_workers.PLACES: str(places), "VGS_DRILL_ROW_S": "3"})
    os.environ |= placed_workers.job_variables(ADDRESS)
    for name, need in needs.items():
        place(name, partial(refusal, need), places)
    for stage in recipe.stages:
        place(stage, partial(MODULES[stage].run, recipe), places)
    place("serve", partial(serve.ask_once, recipe, PROBLEM), places)


if __name__ == "__main__":
    main()
