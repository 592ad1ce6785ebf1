"""The stages that make training data, and its exchange in published layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vgs_ray.config.engine import Engine
from vgs_ray.config.identity import OPERATION
from vgs_ray.config.ranges import (
    Model,
    NonEmptyStr,
    NonNegativeFloat,
    NonNegativeInt,
    OptionalModel,
    PositiveFloat,
    PositiveInt,
    Share,
)
from vgs_ray.config.resources import Resources
from vgs_ray.config.sampling import Sampling
from vgs_ray.config.search import Beam


@dataclass(frozen=True)
class ReferencePolicy:
    """The policy that writes roll-outs and generates in evaluation and serving."""

    model: Model = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    """Folder, URL of a folder (s3://, gs://) or Hugging Face id."""


@dataclass(frozen=True)
class JudgeLimits:
    """Limits of the processes that compare answers by math-verify."""

    timeout_s: PositiveFloat = 5.0
    """Time limit for one comparison in seconds."""
    memory_gib: PositiveFloat = 4.0
    """Memory limit of one process in GiB."""


@dataclass(frozen=True)
class Clean:
    """Raw problems to clean problems."""

    source: NonEmptyStr = "open-r1/OpenR1-Math-220k@e4e141ec9dea9f8326f4d347be56105859b2bd68:default/train"
    """`sandbox`; a .parquet, .arrow, .jsonl or .json file, or a folder of such files; the URL of one of these (s3://, gs://); or
    a Hugging Face data set `id@revision:config/split`. Without a revision, the stage records the current one when it first
    runs."""
    problem_column: NonEmptyStr = "problem"
    """Column with the problem."""
    answer_column: str = "answer"
    """Column with the answer. If empty, the answer is read from the last box of the solution."""
    solution_column: str = "solution"
    """Column with the solution; may be empty."""
    limit: NonNegativeInt = 0
    """Maximum number of raw rows to read; 0 reads all."""
    validation: NonNegativeInt = 500
    """Number of problems for the validation of the value model, chosen by a hash of their ids; at most a tenth of all."""
    test: NonNegativeInt = 500
    """Number of problems that no later stage reads, chosen and limited in the same way."""
    near_duplicate: PositiveFloat = 0.7
    """Two problems with the same numbers, operators and answer are duplicates from this Jaccard similarity of their 3-grams. A
    value over 1 drops exact duplicates only."""
    exclude: tuple[NonEmptyStr, ...] = ()
    """Benchmarks whose problems are dropped as contamination, as in `evaluate.benchmarks`. Local copies are read from
    `evaluate.benchmark_folder`."""
    contamination: Share = 0.0
    """A problem is dropped if more than this share of its 8-grams occurs in one benchmark problem; 0 drops it for a single one
    (arXiv 2505.17373)."""
    workers: Annotated[PositiveInt, OPERATION] = 8
    """Number of processes that check problems."""


@dataclass(frozen=True)
class Generator:
    """A policy that samples roll-ins."""

    name: NonEmptyStr
    """Value of the column `policy`."""
    model: Model
    """Folder, URL of a folder (s3://, gs://) or Hugging Face id."""
    share: NonNegativeFloat = 1.0
    """Its share of the roll-ins, relative to the other generators."""
    search: Beam | None = None
    """Guided search, whose answer with the highest value is the roll-in; needs `value_model`. None samples one answer."""
    value_model: OptionalModel = ""
    """Value model of `search`: folder, URL or Hugging Face id."""
    value_engine: Engine | None = None
    """Engine of the value model, in the same actor as that of the policy. None takes the settings of the policy's engine."""
    engine: Engine | None = None
    """Replaces `roll_in.engine` for this generator."""
    resources: Annotated[Resources | None, OPERATION] = None
    """Replaces `roll_in.resources` for this generator, such as more GPUs for a larger model."""


@dataclass(frozen=True)
class RollIn:
    """Whole answers, sampled by the generators."""

    generators: tuple[Generator, ...] = ()
    """The policies that sample roll-ins."""
    per_problem: PositiveInt = 14
    """Roll-ins for each problem, over all generators."""
    sampling: Sampling = Sampling()
    """Sampling parameters of all generators."""
    engine: Engine = Engine()
    """Engine of every generator that has none of its own."""
    resources: Annotated[Resources, OPERATION] = Resources()
    """Resources of every generator that has none of its own."""
    max_error_share: Annotated[Share, OPERATION] = 0.02
    """The stage stops if more than this share of the samples fails."""


@dataclass(frozen=True)
class RollOut:
    """Completions of roll-in prefixes by the reference policy."""

    scheme: Literal["cuts", "fan"] = "cuts"
    """`cuts` cuts a roll-in at several positions and completes each prefix once. `fan` cuts it at one position and completes that
    prefix several times."""
    cuts: NonNegativeInt = 4
    """Completions for each roll-in; 0 samples nothing, which needs `whole`."""
    whole: bool = False
    """Each roll-in is also a roll-out of its own, with the cut 0 (TVM, arXiv 2407.12863). Its tokens are copied. A roll-in that a
    search selected is cut before its last token instead: it is no sample of the policy, so its outcome says nothing about the
    values of its earlier tokens."""
    positions: Literal["uniform", "sqrt"] = "sqrt"
    """Distribution of the positions. The density of `sqrt` is proportional to the square root of the position, which favours late
    ones."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the reference policy."""
    engine: Engine = Engine()
    """Engine of the reference policy."""
    resources: Annotated[Resources, OPERATION] = Resources()
    """Resources of the engines."""
    max_error_share: Annotated[Share, OPERATION] = 0.02
    """The stage stops if more than this share of the samples fails."""


@dataclass(frozen=True)
class Verify:
    """Roll-outs to outcomes."""

    workers: Annotated[PositiveInt, OPERATION] = 8
    """Number of processes that compare answers."""


@dataclass(frozen=True)
class Label:
    """Outcomes to training labels."""

    kind: Literal["outcome", "outcome_values", "token_values", "step_values"] = "outcome"
    """`outcome` labels all tokens of a roll-out with its class (VGS, arXiv 2505.17373). The other kinds add values of tokens.
    `token_values`: each token has the share of correct paths among those with the same prefix (TVM, arXiv 2407.12863, eq. 8).
    `outcome_values`: each token has the outcome, 0 or 1 (an outcome reward model). `step_values`: the last token of each step has
    the share of `token_values`, and other tokens have no value (a process reward model as in Math-Shepherd, arXiv 2312.08935). An
    incomplete path counts as not correct."""
    delimiter: str = ""
    """Text that ends a step, for `step_values`. The last step ends with the path."""
    paths: NonNegativeInt = 0
    """Use only the first so many roll-ins of each problem, by their index; 0 uses all."""
    hopeless_share: Share = 0.0
    """Share of the problems without a correct roll-out that is kept, chosen by a hash of the problem's id. arXiv 2505.17373 keeps
    none."""


@dataclass(frozen=True)
class Export:
    """Tables to the published layouts, `export/OpenR1-VM` and `export/OpenR1-Cleaned`."""

    responses: NonNegativeInt = 0
    """Responses in each row of OpenR1-VM. Problems with fewer labels are left out, and of others the first ones are taken. The
    published trainer needs the same number in every row (56). 0 writes all of them."""
    shard_mib: PositiveInt = 256
    """Size of a shard in MiB."""
    license: NonEmptyStr = "other"
    """License identifier for the data set card, as defined by Hugging Face."""
    hub: Annotated[str, OPERATION] = ""
    """Hugging Face account or organization to push to; empty pushes nothing. Needs HF_TOKEN."""


@dataclass(frozen=True)
class ImportVM:
    """A published OpenR1-VM data set to tables."""

    source: str = ""
    """Folder with its Parquet shards, or its URL. Shards named validation-* become the validation split; without any,
    `clean.validation` problems do. The test split stays empty."""
