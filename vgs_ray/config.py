"""Configuration: one frozen dataclass for each stage, all of them inside one `Recipe`.

In: nothing. Out: plain values that any process can pickle, print as JSON and compare. No ray, torch or vllm here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

STAGES = ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate")


@dataclass(frozen=True)
class Sampling:
    """How a policy samples.

    Attributes:
        temperature: softmax temperature; 0 is greedy.
        top_p: nucleus mass.
        max_tokens: longest response in tokens (prompt not counted); for one block, the longest block.
        stop_token_ids: tokens that end a block (a delimiter); the token itself is kept.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 16384
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Engine:
    """One vLLM engine and how many of them run.

    Attributes:
        replicas: engines started for this model.
        tensor_parallel_size: GPUs of one engine.
        num_cpus: CPUs that Ray reserves for one engine.
        num_gpus: GPUs that Ray reserves for one engine; a fraction lets two engines share one.
        max_model_len: longest sequence, prompt and response, in tokens.
        max_num_seqs: sequences that are batched together.
        gpu_memory_utilization: share of a GPU's memory that the engine may take.
        kv_cache_gib: memory for cached keys and values on CPU, in GiB.
        dtype: weights' type.
        enforce_eager: skip compilation; starts faster, runs slower.
        threads: CPU threads of one engine; 0 leaves the choice to torch.
    """

    replicas: int = 1
    tensor_parallel_size: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 1.0
    max_model_len: int = 17408
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    kv_cache_gib: float = 1.0
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    enforce_eager: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Generator:
    """A policy that writes roll-ins: `share` of them, relative to the other generators."""

    name: str
    model: str
    share: float = 1.0


@dataclass(frozen=True)
class Clean:
    """Raw problems to clean ones.

    Attributes:
        source: `sandbox`, a local .parquet or .jsonl file (or a folder of them), or a Hugging Face data set id.
        limit: raw rows read at most; 0 reads all.
        validation_share: share of the problems that are kept for validation.
        exclude: benchmark sources (as `source`) whose problems are dropped as contamination.
    """

    source: str = "open-r1/OpenR1-Math-220k"
    limit: int = 0
    validation_share: float = 0.01
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class RollIn:
    """Whole answers sampled by the generators: `per_problem` for each problem."""

    generators: tuple[Generator, ...] = ()
    per_problem: int = 14
    sampling: Sampling = Sampling()
    engine: Engine = Engine()


@dataclass(frozen=True)
class RollOut:
    """Completions by the reference policy from `cuts` positions of each roll-in.

    Attributes:
        model: the reference policy.
        cuts: positions for each roll-in, one completion each (the paper has 4).
        positions: law of the positions; `sqrt` favours late ones (density proportional to the square root).
    """

    model: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    cuts: int = 4
    positions: Literal["uniform", "sqrt"] = "sqrt"
    sampling: Sampling = Sampling()
    engine: Engine = Engine()


@dataclass(frozen=True)
class Verify:
    """Answers to outcomes, by math-verify in processes that can be killed.

    Attributes:
        workers: judging processes.
        timeout_s: wall-clock limit for one pair of answers, in seconds.
        memory_gib: memory limit of one judging process, in GiB.
    """

    workers: int = 8
    timeout_s: float = 5.0
    memory_gib: float = 4.0


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
    hopeless_share: float = 0.0


@dataclass(frozen=True)
class Train:
    """Fit the value model (arXiv 2505.17373, appendix E).

    Attributes:
        init: model that the backbone starts from.
        max_length: tokens of one sequence; a longer one loses its label.
        batch_size: sequences in one optimizer step, over all workers.
        micro_tokens: tokens in one forward pass of one worker.
        steps: optimizer steps.
        lr, min_lr_share, warmup_share: peak learning rate, its last share of the peak, share of steps that warm up.
        betas, eps, weight_decay, clip_norm, dropout: AdamW, gradient clipping and head dropout.
        group_size: responses of one problem that stay together in the shuffle.
        workers: training processes.
        cpus_per_worker, gpus_per_worker: what Ray reserves for one of them.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
    """

    init: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    max_length: int = 16384
    batch_size: int = 1024
    micro_tokens: int = 16384
    steps: int = 12170
    lr: float = 1e-4
    min_lr_share: float = 0.1
    warmup_share: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float = 5.0
    dropout: float = 0.05
    group_size: int = 2
    workers: int = 8
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 1.0
    checkpoint_every: int = 486
    validate_every: int = 486


@dataclass(frozen=True)
class Beam:
    """Shape of the guided search: `groups` independent beams that keep `keep` of `keep * branch` blocks.

    Attributes:
        keep: prefixes kept after each block.
        branch: blocks sampled from each kept prefix (the paper's width w).
        block: tokens of one block.
        groups: independent beams whose answers vote together (DVTS when more than 1).
    """

    keep: int = 2
    branch: int = 2
    block: int = 4096
    groups: int = 1

    @property
    def budget(self) -> int:
        """Generations side by side in each round: what the papers call N."""
        return self.keep * self.branch * self.groups


@dataclass(frozen=True)
class Evaluate:
    """Methods on benchmark problems.

    Attributes:
        benchmark: `sandbox`, or a local .parquet or .jsonl with columns problem and answer.
        limit: problems taken from the start; 0 takes all.
        samples: independent samples for each problem; every smaller budget comes from regrouping them.
        beam: the guided search at the largest budget; smaller budgets take fewer groups.
        budgets: budgets in the report.
        sampling: of the policy.
        policy_engine, value_engine: the two engines; they run side by side in one actor.
        concurrent: problems that one actor works on at a time.
        bootstrap: resamples for the intervals.
    """

    benchmark: str = "sandbox"
    limit: int = 0
    samples: int = 16
    beam: Beam = Beam()
    budgets: tuple[int, ...] = (4, 8, 16)
    sampling: Sampling = Sampling()
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5, num_gpus=0.5)
    value_engine: Engine = Engine(gpu_memory_utilization=0.4, num_gpus=0.5)
    concurrent: int = 64
    bootstrap: int = 2000


@dataclass(frozen=True)
class Serve:
    """The endpoint.

    Attributes:
        host, port: address that the proxy listens on.
        model_name: what `/v1/models` lists.
        beam: the search of a request that names none.
        sampling: of a request that sets none.
        policy_engine, value_engine: the two engines of one replica.
        max_budget: largest budget that a request may ask for.
        max_problem_chars: longest problem text that is accepted.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str = "vgs"
    beam: Beam = Beam(keep=2, branch=2, groups=4)
    sampling: Sampling = Sampling()
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5, num_gpus=0.5)
    value_engine: Engine = Engine(gpu_memory_utilization=0.4, num_gpus=0.5)
    max_budget: int = 256
    max_problem_chars: int = 16384


@dataclass(frozen=True)
class Recipe:
    """A full configuration: every stage of one run.

    Attributes:
        name: the recipe's name.
        root: folder of all runs; the command line makes it absolute.
        run_name: folder of this run under `root`; empty means the recipe's name.
        seed: seed of the run; every row's seed is derived from it and the row's id.
        instruction: appended to every problem, in training and in search alike.
    """

    name: str
    root: str = "runs"
    run_name: str = ""
    seed: int = 0
    instruction: str = ""
    clean: Clean = field(default_factory=Clean)
    roll_in: RollIn = field(default_factory=RollIn)
    roll_out: RollOut = field(default_factory=RollOut)
    verify: Verify = field(default_factory=Verify)
    label: Label = field(default_factory=Label)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    serve: Serve = field(default_factory=Serve)

    @property
    def folder(self) -> Path:
        """`{root}/{run_name}`."""
        return Path(self.root) / (self.run_name or self.name)

    def section(self, stage: str) -> dict[str, Any]:
        """The configuration of one stage as plain JSON values, with what all stages share."""
        return {"seed": self.seed, "instruction": self.instruction, **asdict(getattr(self, stage))}
