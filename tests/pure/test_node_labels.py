"""Labels that choose nodes: syntax, meaning, and what each stage asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray._private.label_utils import validate_label_selector

from pipelines.cli import parse
from pipelines.placement import engine_options, stage_options, use_nodes, worker_options
from pipelines.recipes import sandbox
from pipelines.serving.engine_replicas import PolicyReplica, engine_deployment
from pipelines.train import scaling_config
from vgs_ray.config import Engine, Generator, Resources, RollIn
from vgs_ray.config.node_labels import label_fault, matches, nodes_of, selector
from vgs_ray.errors import UserError

L40S, SPOT = "ray.io/accelerator-type=L40S", "ray.io/market-type=spot"
NODE = {"ray.io/accelerator-type": "L40S", "zone": "a"}


@pytest.mark.parametrize(
    ("label", "matched"),
    [
        (L40S, True),
        ("ray.io/accelerator-type=!L40S", False),
        ("ray.io/accelerator-type=in(H100,L40S)", True),
        ("ray.io/accelerator-type=!in(H100,L40S)", False),
        (SPOT, False),
        ("ray.io/market-type=!spot", True),
    ],
)
def test_conditions_on_a_node(label: str, matched: bool) -> None:
    assert label_fault("train.nodes", (label,)) is None
    assert validate_label_selector(selector((label,))) is None  # Ray accepts it
    assert matches(NODE, (label,)) is matched
    assert matches(NODE, (label, "zone=a")) is matched


@pytest.mark.parametrize("labels", [["H100"], ["a="], ["a=b c"], ["a=b", "a=c"], ["a=in()"]])
def test_a_label_that_ray_would_refuse_is_refused_first(labels: list[str]) -> None:
    with pytest.raises(UserError, match=r"train.nodes is .*KEY=VALUE.*pass another --train.nodes"):
        parse("pipelines.train", ["sandbox", "--train.nodes", *labels])


def test_each_stage_asks_for_its_nodes() -> None:
    base = replace(sandbox(), cpu_nodes=("group=cpu",))
    recipe = replace(
        base,
        train=replace(base.train, nodes=("group=train",)),
        roll_out=replace(base.roll_out, resources=Resources(nodes=(L40S,))),
    )
    asked = {stage: nodes_of(recipe, stage) for stage in ("clean", "verify", "label", "train", "roll_out", "evaluate")}
    cpu = ("group=cpu",)
    assert asked == {
        "clean": cpu, "verify": cpu, "label": cpu, "train": ("group=train",), "roll_out": (L40S,), "evaluate": (),
    }  # fmt: skip


def test_stage_roll_in_asks_for_what_all_generators_ask_for() -> None:
    own = Generator("b", "b", resources=Resources(nodes=(L40S, SPOT)))
    config = RollIn(generators=(Generator("a", "a"), own), resources=Resources(nodes=(L40S,)))
    assert nodes_of(replace(sandbox(), roll_in=config), "roll_in") == (L40S,)
    assert nodes_of(replace(sandbox(), roll_in=replace(config, resources=Resources())), "roll_in") == ()


def test_everything_that_ray_places_gets_the_labels() -> None:
    resources, config = Resources(nodes=(L40S, "zone=!b")), replace(sandbox().train, nodes=("zone=a",))
    asked = {"ray.io/accelerator-type": "L40S", "zone": "!b"}
    replica = engine_deployment(PolicyReplica, "policy", Engine(), resources, 0)
    assert engine_options(resources)["label_selector"] == replica.ray_actor_options["label_selector"] == asked
    assert worker_options(config)["label_selector"] == scaling_config(config, 2).label_selector == {"zone": "a"}
    use_nodes(("zone=a",))
    assert stage_options() == {"label_selector": {"zone": "a"}}
    use_nodes(())
    assert stage_options() == {}
    assert engine_options(Resources()) == {"num_cpus": 1.0, "num_gpus": 1.0}
