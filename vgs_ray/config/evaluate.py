"""Evaluation of search methods on benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from vgs_ray.config.engine import Engine
from vgs_ray.config.identity import OPERATION
from vgs_ray.config.ranges import NonEmptyStr, NonNegativeFloat, NonNegativeInt, OptionalModel, PositiveInt, Share
from vgs_ray.config.resources import Resources
from vgs_ray.config.sampling import Sampling
from vgs_ray.config.search import Beam, Variant


@dataclass(frozen=True)
class Evaluate:
    """Search methods on benchmark problems."""

    benchmarks: Annotated[tuple[NonEmptyStr, ...], MinLen(1)] = ("sandbox",)
    """`sandbox`; a name (aime-24, aime-25, hmmt-feb-24, hmmt-feb-25, math-500, gsm8k: Hugging Face data sets at a fixed
    revision); or a source with the columns problem and answer: a .parquet or .jsonl file, its URL, or a Hugging Face data set."""
    benchmark_folder: str = ""
    """Folder, or its URL, with copies of the named benchmarks, such as aime-24.jsonl, for machines without access to Hugging
    Face."""
    policy: OptionalModel = ""
    """Policy to evaluate: folder, URL or Hugging Face id. If empty, the model that stage tune wrote, or stage train with
    `train.share_policy`, or `policy.model` in a recipe without such a stage."""
    value_model: OptionalModel = ""
    """Folder, URL or Hugging Face id of a value model or a process reward model (Qwen2, Qwen3 or Llama for sequence or token
    classification). `random` scores at random, and `policy` is the value head of the policy itself. If empty, the model that
    stage train wrote, or `policy` in a recipe without that stage and with `train.share_policy`."""
    limit: NonNegativeInt = 0
    """Number of problems from the start of each benchmark; 0 takes all."""
    samples: PositiveInt = 16
    """Independent samples for each problem. Smaller budgets are estimated from subsets of them."""
    beam: Beam = Beam(groups=4)
    """The guided search at the largest budget. Smaller budgets use fewer groups."""
    greedy: bool = False
    """Also generate one answer at temperature 0."""
    variants: tuple[Variant, ...] = ()
    """Additional searches. The budget of a tree search is the maximum number of blocks that it samples."""
    budgets: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (4, 8, 16)
    """Budgets in the report."""
    confidence: Share = 0.95
    """Confidence at which an adaptive vote stops, over 0.5 and at most 1; 0 leaves adaptive votes out."""
    likelihood: Annotated[NonNegativeFloat, OPERATION] = 0.0
    """Weight c of the likelihood in the methods `*_likely`; 0 leaves these methods out. They select the answer with the highest
    value * exp(c * mean log-probability of its tokens). Choose c on validation problems."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the policy."""
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5)
    """Engine of the policy."""
    value_engine: Engine = Engine(gpu_memory_utilization=0.4)
    """Engine of a separate value model, in the same actor as that of the policy."""
    resources: Annotated[Resources, OPERATION] = Resources(num_cpus=2.0)
    """Resources of the actors, each of which holds the engines of policy and value. An actor runs as many searches at a time as
    the prefix caches of its engines hold."""
    bootstrap: PositiveInt = 2000
    """Bootstrap resamples for the confidence intervals."""
