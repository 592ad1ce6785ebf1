"""Step-level value preference optimization (SVPO, arXiv 2406.10858): trees, preference pairs, policy and value in one model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from vgs_ray.config.engine import Engine
from vgs_ray.config.identity import OPERATION
from vgs_ray.config.ranges import (
    Labels,
    NonNegativeFloat,
    NonNegativeInt,
    OptionalModel,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareBelowOne,
)
from vgs_ray.config.resources import Resources
from vgs_ray.config.sampling import Sampling
from vgs_ray.config.search import Mcts, alphamath


@dataclass(frozen=True)
class Trees:
    """Search trees of training problems, with outcomes."""

    per_problem: PositiveInt = 10
    """Trees for each problem."""
    search: Mcts = alphamath()
    """The tree search."""
    value_model: OptionalModel = ""
    """Folder, URL or Hugging Face id of a value model, or `policy` for the value head of the policy itself. If empty, only
    answers that ended have a value: the outcome."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=1.0)
    """Sampling parameters of the policy."""
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5)
    """Engine of the policy."""
    value_engine: Engine = Engine(gpu_memory_utilization=0.4)
    """Engine of a separate value model, in the same actor as that of the policy."""
    resources: Annotated[Resources, OPERATION] = Resources(num_cpus=2.0)
    """Resources of the actors."""
    concurrent: Annotated[PositiveInt, OPERATION] = 64
    """Number of trees that one actor grows at the same time."""
    max_error_share: Annotated[Share, OPERATION] = 0.02
    """The stage stops if more than this share of the trees fails."""


@dataclass(frozen=True)
class Pairs:
    """Preference pairs from trees."""

    kind: Literal["step", "solution"] = "step"
    """`step` pairs two blocks that continue the same prefix (SVPO). `solution` pairs a correct and an incorrect whole answer to
    one problem, as for DPO on solutions."""
    min_margin: NonNegativeFloat = 0.5
    """Minimum difference between the Q-values of a pair, which are in [-1, 1]."""
    min_visits: NonNegativeInt = 1
    """Minimum number of visits of each block of a pair."""
    per_problem: NonNegativeInt = 0
    """Maximum number of pairs of one problem, those with the largest margins; 0 takes all."""


@dataclass(frozen=True)
class Tune:
    """Train the policy on preference pairs, together with a value head."""

    init: OptionalModel = ""
    """Model to start from, which is also the reference of DPO. If empty, the policy."""
    loss: Literal["dpo", "sft", "none"] = "dpo"
    """Loss of the policy: `dpo` with the SFT term, `sft` on the chosen side of each pair, or `none`, which trains only the value
    head."""
    beta: PositiveFloat = 0.1
    """Beta of DPO."""
    sft_weight: NonNegativeFloat = 0.5
    """Weight of the SFT term beside DPO."""
    value_weight: NonNegativeFloat = 1.0
    """Weight of the squared error between the value and Q."""
    margin_weight: NonNegativeFloat = 0.1
    """Weight of the margin loss max(0, margin - (value of chosen - value of rejected))."""
    margin: NonNegativeFloat = 0.5
    """Margin between the values of a pair, which are in [-1, 1]."""
    dropout: ShareBelowOne = 0.1
    """Dropout before the value head (AlphaMath)."""
    max_length: PositiveInt = 2048
    """Maximum length in tokens of a prompt with either side of a pair, or with a path. Longer ones are left out and counted."""
    batch_size: PositiveInt = 128
    """Pairs in one optimizer step, over all workers."""
    paths: NonNegativeInt = 128
    """Paths of trees in one optimizer step, over all workers, on which the value is trained in addition to the ends of pairs; 0
    trains it on the ends alone. The targets are Q at all nodes (`pairs.kind` step) or the outcome at the end (solution)."""
    micro_batch: Annotated[PositiveInt, OPERATION] = 4
    """Pairs in one forward pass of one worker, which has a proportional number of paths."""
    epochs: PositiveInt = 1
    """Passes over the pairs."""
    lr: PositiveFloat = 5e-7
    """Peak learning rate of the policy."""
    head_lr: PositiveFloat = 1e-4
    """Peak learning rate of the value head."""
    warmup_share: Share = 0.1
    """Share of the steps that warm up."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    clip_norm: PositiveFloat = 1.0
    """Maximum norm of the gradient."""
    bf16: bool = True
    """Compute in bfloat16, which needs a GPU."""
    workers: Annotated[PositiveInt, OPERATION] = 8
    """Number of training processes."""
    cpus_per_worker: Annotated[PositiveFloat, OPERATION] = 1.0
    """CPUs that Ray reserves for each worker."""
    gpus_per_worker: Annotated[NonNegativeFloat, OPERATION] = 1.0
    """GPUs that Ray reserves for each worker."""
    nodes: Annotated[Labels, OPERATION] = ()
    """Labels of the nodes that may hold workers, as in `roll_out.resources.nodes`."""
    max_failures: Annotated[NonNegativeInt, OPERATION] = 3
    """Number of restarts from the last checkpoint before the stage fails."""
    shard_size: Annotated[NonNegativeInt, OPERATION] = 0
    """Number of workers that share one copy of the weights, the optimizer and the reference (FSDP2); see `train.shard_size`."""
    reshard: Annotated[bool, OPERATION] = True
    """Free the gathered weights of each layer after its forward pass: less memory, more communication."""
    checkpoint_every: Annotated[PositiveInt, OPERATION] = 100
    """Steps between checkpoints."""
    validate_every: Annotated[PositiveInt, OPERATION] = 100
    """Steps between validations."""
    activations: Annotated[Literal["keep", "checkpoint"], OPERATION] = "checkpoint"
    """What the forward pass keeps for the backward pass: everything, or the inputs of the layers, which then run twice."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], OPERATION] = ("tensorboard",)
    """Experiment trackers to log to, in addition to `metrics.jsonl`."""

    def steps(self, pairs: int) -> int:
        """Optimizer steps of a run on so many training pairs."""
        return self.epochs * math.ceil(pairs / self.batch_size)
