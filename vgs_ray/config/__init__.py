"""Configuration: one frozen dataclass for each stage, all of them inside one `Recipe`.

In: nothing. Out: plain values that any process can pickle, print as JSON and compare. No ray, torch or vllm here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vgs_ray.config.engine import Beam, Engine, Mcts, Rebase, Sampling
from vgs_ray.config.lengths import longest_sequence
from vgs_ray.config.model import Evaluate, Serve, Train, Variant
from vgs_ray.config.ranges import (
    NonEmptyStr,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Seed,
    Share,
)

__all__ = [
    "STAGES", "Beam", "Clean", "Engine", "Evaluate", "Export", "Generator", "ImportVM", "Label", "Mcts", "Plan", "Rebase",
    "Recipe", "RollIn", "RollOut", "Sampling", "Serve", "Train", "Variant", "Verify",
]  # fmt: skip

STAGES = ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate")


@dataclass(frozen=True)
class Generator:
    """A policy that writes roll-ins: `share` of them, relative to the other generators.

    Attributes:
        name: what the column `policy` says.
        model: folder or hub id.
        share: of the roll-ins.
        engine: its engine, where it is not that of the other generators (such as more GPUs for a larger model).
    """

    name: NonEmptyStr
    model: NonEmptyStr
    share: NonNegativeFloat = 1.0
    engine: Engine | None = None


@dataclass(frozen=True)
class Clean:
    """Raw problems to clean ones.

    Attributes:
        source: `sandbox`, a .parquet, .arrow, .jsonl or .json file (or a folder of one kind), or a Hugging Face data set,
            `id@revision:config/split`. Without a revision, the stage notes the one that the hub has when it first runs.
        problem_column: the source's column with the problem.
        answer_column: its column with the answer; empty takes what the solution's last box holds.
        solution_column: its column with the solution, where it has one.
        limit: raw rows read at most; 0 reads all.
        validation: problems kept for the validation of the value model, chosen by a hash of their ids; at most a tenth of all.
        test: problems that no later stage reads, chosen and limited in the same way.
        near_duplicate: similarity (Jaccard, runs of 3 tokens) from which two problems with the same numbers, operators and
            answer are one; over 1 drops exact duplicates only.
        exclude: benchmarks (as in `evaluate.benchmarks`) whose problems are dropped as contamination; copies of the named
            ones are read from `evaluate.benchmark_folder`.
        contamination: a problem is dropped when more than this share of its 8-grams lies in one benchmark problem; 0 drops
            it for a single one, as in the paper.
        workers: checking processes.
        timeout_s: wall-clock limit for one comparison of an answer with a box, in seconds.
    """

    source: NonEmptyStr = "open-r1/OpenR1-Math-220k@e4e141ec9dea9f8326f4d347be56105859b2bd68:default/train"
    problem_column: NonEmptyStr = "problem"
    answer_column: str = "answer"
    solution_column: str = "solution"
    limit: NonNegativeInt = 0
    validation: NonNegativeInt = 500
    test: NonNegativeInt = 500
    near_duplicate: PositiveFloat = 0.7
    exclude: tuple[NonEmptyStr, ...] = ()
    contamination: Share = 0.0
    workers: PositiveInt = 8
    timeout_s: PositiveFloat = 5.0


@dataclass(frozen=True)
class RollIn:
    """Whole answers sampled by the generators.

    Attributes:
        generators: the policies.
        per_problem: roll-ins of each problem, from all generators together.
        sampling: how they sample.
        engine: engine of each generator that has none of its own.
        max_error_share: share of the samples that may fail; with more, the stage fails.
    """

    generators: tuple[Generator, ...] = ()
    per_problem: PositiveInt = 14
    sampling: Sampling = Sampling()
    engine: Engine = Engine()
    max_error_share: Share = 0.02


@dataclass(frozen=True)
class RollOut:
    """Completions by the reference policy of each roll-in's beginnings.

    Attributes:
        model: the reference policy.
        scheme: `cuts` cuts a roll-in at several positions and completes each once; `fan` cuts it at one position and
            completes that several times. Accounts of the paper differ about which it had.
        cuts: completions of each roll-in (the paper has 4).
        positions: law of the positions; `sqrt` favours late ones (density proportional to the square root).
        sampling, engine: of the reference policy.
        max_error_share: share of the samples that may fail; with more, the stage fails.
    """

    model: NonEmptyStr = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    scheme: Literal["cuts", "fan"] = "cuts"
    cuts: PositiveInt = 4
    positions: Literal["uniform", "sqrt"] = "sqrt"
    sampling: Sampling = Sampling()
    engine: Engine = Engine()
    max_error_share: Share = 0.02


@dataclass(frozen=True)
class Verify:
    """Answers to outcomes, by math-verify in processes that can be killed.

    Attributes:
        workers: judging processes.
        timeout_s: wall-clock limit for one pair of answers, in seconds.
        memory_gib: memory limit of one judging process, in GiB.
    """

    workers: PositiveInt = 8
    timeout_s: PositiveFloat = 5.0
    memory_gib: PositiveFloat = 4.0


@dataclass(frozen=True)
class Label:
    """Outcomes to training labels.

    Attributes:
        kind: `outcome` is the class of the finished roll-out for all of its tokens (VGS, arXiv 2505.17373);
            `token_values` also gives each token the share of correct paths that begin alike (TVM, arXiv 2407.12863, eq. 8).
        hopeless_share: share of the problems without any correct roll-out that is kept, chosen by a hash of the
            problem's id. The paper keeps none: its model never sees a hopeless problem.
    """

    kind: Literal["outcome", "token_values"] = "outcome"
    hopeless_share: Share = 0.0


@dataclass(frozen=True)
class Export:
    """Tables to the published layouts, `export/OpenR1-VM` and `export/OpenR1-Cleaned`.

    Attributes:
        responses: responses of each row of OpenR1-VM: problems with fewer labels are left out, of others the first ones are
            taken (the published trainer needs the same number in every row: 56). 0 writes all there are.
        shard_mib: a shard ends when it has this size, in MiB.
        license: what the card says, an identifier that Hugging Face knows.
        hub: account or organisation to push to, with the token in HF_TOKEN; empty pushes nothing.
    """

    responses: NonNegativeInt = 0
    shard_mib: PositiveInt = 256
    license: NonEmptyStr = "other"
    hub: str = ""


@dataclass(frozen=True)
class ImportVM:
    """A published OpenR1-VM data set to our tables.

    Attributes:
        source: local folder of its Parquet shards. Shards named validation-* are the validation split; without any,
            `clean.validation` problems go there. Nothing goes to the test split.
    """

    source: str = ""


@dataclass(frozen=True)
class Plan:
    """What `python -m pipelines.plan` assumes. A 0 is read from the recipe's run folder, or has the default that is named.

    Attributes:
        problems: problems after clean; default 0.527 of `clean.limit` (or of OpenR1-Math's 93,733), as in the paper.
        prompt_tokens: mean; default 150.
        roll_in_tokens: mean of a whole answer; default 0.85 of the longest, from the paper's tokens of an epoch.
        roll_out_tokens: mean of a completion; default 0.353 of the longest, from the same.
        tokens_per_s: that one GPU generates with the reference policy; a larger policy is slower by its size. Default:
            `generate_share` of the peak.
        peak_tflops: dense bfloat16 peak of one GPU in TFLOP/s (H100: 989).
        generate_share: share of the peak that generation reaches: an assumption until you measure.
        train_share: share of the peak that training reaches: about what the paper's hours come to.
        hopeless: share of the roll-outs whose problem nothing solved; default 0.099, as in the paper.
    """

    problems: NonNegativeInt = 0
    prompt_tokens: NonNegativeFloat = 0.0
    roll_in_tokens: NonNegativeFloat = 0.0
    roll_out_tokens: NonNegativeFloat = 0.0
    tokens_per_s: NonNegativeFloat = 0.0
    peak_tflops: PositiveFloat = 989.0
    generate_share: PositiveShare = 0.04
    train_share: PositiveShare = 0.15
    hopeless: Share = 0.0


@dataclass(frozen=True)
class Recipe:
    """A full configuration: every stage of one run.

    Attributes:
        name: the recipe's name.
        root: folder of all runs; the command line makes it absolute.
        run_name: folder of this run under `root`; empty means the recipe's name.
        seed: seed of the run; every row's seed is derived from it and the row's id.
        instruction: appended to every problem, in training and in search alike; one that holds `{problem}` is a template.
    """

    name: NonEmptyStr
    root: NonEmptyStr = "runs"
    run_name: str = ""
    seed: Seed = 0
    instruction: str = ""
    clean: Clean = field(default_factory=Clean)
    roll_in: RollIn = field(default_factory=RollIn)
    roll_out: RollOut = field(default_factory=RollOut)
    verify: Verify = field(default_factory=Verify)
    label: Label = field(default_factory=Label)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    serve: Serve = field(default_factory=Serve)
    export: Export = field(default_factory=Export)
    import_vm: ImportVM = field(default_factory=ImportVM)
    plan: Plan = field(default_factory=Plan)

    @property
    def folder(self) -> Path:
        """`{root}/{run_name}`."""
        return Path(self.root) / (self.run_name or self.name)

    @property
    def resolved_train(self) -> Train:
        """The configuration of stage train with its lengths as numbers; a micro-batch holds one sequence at least."""
        longest = self.train.max_length or longest_sequence(self)
        return replace(self.train, max_length=longest, micro_tokens=max(self.train.micro_tokens, longest))

    def section(self, stage: str) -> dict[str, Any]:
        """The configuration of one stage as plain JSON values, with what all stages share."""
        config = self.resolved_train if stage == "train" else getattr(self, stage)
        return {"seed": self.seed, "instruction": self.instruction, **asdict(config)}
