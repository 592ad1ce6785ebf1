"""A recipe: the configuration of a whole run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vgs_ray.config.data import (
    Clean,
    Export,
    ImportVM,
    JudgeLimits,
    Label,
    ReferencePolicy,
    RollIn,
    RollOut,
    Verify,
)
from vgs_ray.config.evaluate import Evaluate
from vgs_ray.config.identity import Leaf, Role, leaves
from vgs_ray.config.lengths import longest_sequence
from vgs_ray.config.plan import PlanAssumptions
from vgs_ray.config.ranges import Labels, NonEmptyStr, Seed
from vgs_ray.config.serve import Serve
from vgs_ray.config.svpo import Pairs, Trees, Tune
from vgs_ray.config.train import Train

if TYPE_CHECKING:
    from upath import UPath

STAGES = ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate")
"""Stages of a value model from roll-outs (VGS, TVM), in order."""
SVPO_STAGES = ("clean", "trees", "pairs", "tune", "evaluate")
"""Stages of step-level value preference optimization, in order."""
OWN_HEAD = "policy"
"""Value model that stands for the value head of the policy itself."""
SHARED = {
    "clean": ("seed", "judge"),
    "roll_in": ("seed", "instruction"),
    "roll_out": ("seed", "policy"),
    "verify": ("policy", "judge"),
    "label": ("policy",),
    "train": ("seed",),
    "trees": ("seed", "instruction", "policy", "judge"),
    "pairs": ("policy",),
    "tune": ("seed", "policy"),
    "evaluate": ("seed", "instruction", "policy", "judge"),
    "serve": ("seed", "instruction", "policy", "judge"),
    "export": (),
}
"""What a stage reads of the recipe in addition to its own section."""


@dataclass(frozen=True)
class Recipe:
    """The configuration of all stages of a run."""

    name: NonEmptyStr
    """Name of the recipe."""
    root: NonEmptyStr = "runs"
    """Folder of all runs: a path, or a URL such as s3://bucket/runs or gs://bucket/runs. All nodes of a cluster must see it."""
    run_name: str = ""
    """Folder of this run in `root`; the recipe's name if empty."""
    stages: tuple[NonEmptyStr, ...] = STAGES
    """Stages of the run, in order."""
    base_run: str = ""
    """Run in `root` whose tables of the stages `base_stages` this run uses. Such a stage is run there if it is not complete."""
    base_stages: tuple[NonEmptyStr, ...] = ()
    """Stages of `base_run` that this run uses instead of its own."""
    earlier_runs: tuple[NonEmptyStr, ...] = ()
    """Runs in `root` whose roll-outs this run labels and trains on, in addition to its own."""
    cpu_nodes: Labels = ()
    """Labels of the nodes for the stages without engines and training, as in `roll_out.resources.nodes`. Without any, Ray prefers
    nodes without GPUs."""
    seed: Seed = 0
    """Seed of the run. The seed of each row is derived from it and the row's id."""
    instruction: str = ""
    """Text appended to every problem. If it contains `{problem}`, it is a template for the whole prompt."""
    policy: ReferencePolicy = field(default_factory=ReferencePolicy)
    judge: JudgeLimits = field(default_factory=JudgeLimits)
    clean: Clean = field(default_factory=Clean)
    roll_in: RollIn = field(default_factory=RollIn)
    roll_out: RollOut = field(default_factory=RollOut)
    verify: Verify = field(default_factory=Verify)
    label: Label = field(default_factory=Label)
    train: Train = field(default_factory=Train)
    trees: Trees = field(default_factory=Trees)
    pairs: Pairs = field(default_factory=Pairs)
    tune: Tune = field(default_factory=Tune)
    evaluate: Evaluate = field(default_factory=Evaluate)
    serve: Serve = field(default_factory=Serve)
    export: Export = field(default_factory=Export)
    import_vm: ImportVM = field(default_factory=ImportVM)
    plan: PlanAssumptions = field(default_factory=PlanAssumptions)

    @property
    def folder(self) -> UPath:
        """`{root}/{run_name}`."""
        return self._in_root(self.run_name or self.name)

    def stage_folder(self, stage: str) -> UPath:
        """`{root}/{run_name}/{stage}`, or the stage's folder in `base_run`."""
        return (self._in_root(self.base_run) if stage in self.base_stages else self.folder) / stage

    def _in_root(self, run: str) -> UPath:
        from vgs_ray.data.storage import storage_path  # loads pyarrow, which a configuration alone does not need

        return storage_path(self.root) / run

    def uses_own_head(self, stage: str) -> bool:
        """Whether the value head of the policy itself scores the blocks of a stage's searches: trees, evaluate or serve."""
        named = getattr(self, stage).value_model
        separate = "train" in self.stages and not self.train.share_policy
        return named == OWN_HEAD or (not named and stage != "trees" and not separate)

    @property
    def policy_stage(self) -> str:
        """The stage that writes the evaluated policy: tune, or train if the value model shares its layers; empty without one."""
        if "tune" in self.stages:
            return "tune"
        return "train" if "train" in self.stages and self.train.share_policy else ""

    @property
    def written_policy(self) -> UPath | None:
        """The folder of the policy that a stage of the recipe writes."""
        stage = self.policy_stage
        return self.stage_folder(stage) / {"tune": "model", "train": "value_model"}[stage] if stage else None

    def of_run(self, run: str) -> Recipe:
        """This recipe for another run in the same root, with tables of its own only."""
        return replace(self, run_name=run, base_run="", base_stages=(), earlier_runs=())

    @property
    def resolved_train(self) -> Train:
        """Stage train with its lengths as numbers. A micro-batch holds at least one sequence."""
        longest = self.train.max_length or longest_sequence(self)
        return replace(self.train, max_length=longest, micro_tokens=max(self.train.micro_tokens, longest))

    @property
    def resolved_tune(self) -> Tune:
        """Stage tune with the model that it starts from."""
        return replace(self.tune, init=self.tune.init or self.policy.model)

    def identity(self, stage: str) -> dict[str, Any]:
        """The fields that determine the rows of a stage, by name. Models are in `models`, because their content counts."""
        return {leaf.name: leaf.value for leaf in self._leaves(stage) if leaf.role is Role.IDENTITY}

    def operation(self, stage: str) -> dict[str, Any]:
        """All other fields of a stage, by name. They may change when the stage is restarted."""
        return {leaf.name: leaf.value for leaf in self._leaves(stage) if leaf.role is not Role.IDENTITY}

    def models(self, stage: str) -> dict[str, str]:
        """The models that a stage loads, by the field that names each. A value model of stage train has no name."""
        return {leaf.name: leaf.value for leaf in self._leaves(stage) if leaf.role is Role.MODEL and leaf.value}

    def _leaves(self, stage: str) -> list[Leaf]:
        section = self.resolved_train if stage == "train" else getattr(self, stage)
        values = {name: getattr(self, name) for name in SHARED[stage]} | {stage: section}
        return [leaf for name, value in values.items() for leaf in leaves(name, value)]
