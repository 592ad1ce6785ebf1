"""Configuration of the stages around the value model: train, evaluate, serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from vgs_ray.config.engine import Beam, Engine, Mcts, Rebase, Sampling
from vgs_ray.config.ranges import (
    NonEmptyStr,
    NonNegativeFloat,
    NonNegativeInt,
    Port,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareBelowOne,
)


@dataclass(frozen=True)
class Train:
    """Fit the value model (arXiv 2505.17373, appendix E).

    Attributes:
        init: model that the backbone starts from.
        loss: `outcome` is the class of the finished answer on every roll-out token (VGS); `soft` and `mse` fit each token's
            own value, by cross-entropy or by squared error (TVM); `bradley_terry` ranks a right above a wrong answer.
        max_length: tokens of the longest training sequence, prompt and response; 0 is the longest that stage roll_out can write,
            and less is refused. An imported sequence may be longer: docs/training.md says what becomes of it.
        batch_size: sequences in one optimizer step, over all workers, however many there are.
        micro_tokens: tokens in one forward pass of one worker, at least `max_length`; peak memory follows it.
        steps: optimizer steps.
        lr, min_lr_share, warmup_share: peak learning rate, its last share of the peak, share of steps that warm up.
        min_warmup_steps: steps that warm up at least.
        betas, eps, weight_decay, clip_norm: AdamW (the decay is of matrices and embeddings only) and gradient clipping.
        dropout: before the head.
        attention_dropout: in attention. Only flash-attn 2 has it for packed sequences on a GPU; docs/training.md says what runs
            without.
        trained_layers: only the head, the last norm and so many last blocks learn, which is cheaper; 0 trains everything. MFU
            counts all blocks either way.
        group_size: responses of one problem that stay together in the shuffle.
        workers: training processes.
        min_workers: with fewer (a node was lost) training goes on, and grows again to `workers`; 0 waits for all of them.
        cpus_per_worker, gpus_per_worker: what Ray reserves for one of them.
        max_failures: restarts from the last checkpoint before the stage fails.
        timeout_s: a collective operation that takes longer means that a worker is lost.
        shard_size: workers that share one copy of weights and optimizer (FSDP2): 0 all of them, 1 none (each has its own
            copy), between them HSDP. With a number of workers that it does not divide, their greatest common divisor.
        reshard: free the gathered weights after each forward and backward pass: less memory, more traffic.
        activation_checkpointing: recompute each block's activations in the backward pass.
        compile: compile each block by torch.compile.
        attention: `auto` is flash attention where it is installed, else torch's own for sequences of unequal length
            (`varlen`), or SDPA with a mask for attention dropout on a GPU.
        checkpoint_every, checkpoints_kept: steps between checkpoints, and how many stay.
        async_checkpoints: write them while training goes on; costs a copy of the state in main memory.
        validate_every: steps between validations.
        position_bin: tokens of one bin of the accuracy by position.
        trackers: where the curves go, besides `metrics.jsonl`.
        push_to: Hugging Face repository that the finished model goes to; empty for none. Needs HF_TOKEN.
    """

    init: NonEmptyStr = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    loss: Literal["outcome", "soft", "mse", "bradley_terry"] = "outcome"
    max_length: NonNegativeInt = 0
    batch_size: PositiveInt = 1024
    micro_tokens: PositiveInt = 16384
    steps: PositiveInt = 12170
    lr: PositiveFloat = 1e-4
    min_lr_share: Share = 0.1
    warmup_share: Share = 0.05
    min_warmup_steps: NonNegativeInt = 100
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    eps: PositiveFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.1
    clip_norm: PositiveFloat = 5.0
    dropout: ShareBelowOne = 0.05
    attention_dropout: ShareBelowOne = 0.0
    trained_layers: NonNegativeInt = 0
    group_size: PositiveInt = 2
    workers: PositiveInt = 8
    min_workers: NonNegativeInt = 0
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 1.0
    max_failures: NonNegativeInt = 3
    timeout_s: PositiveInt = 300
    shard_size: NonNegativeInt = 0
    reshard: bool = False
    activation_checkpointing: bool = True
    compile: bool = False
    attention: Literal["auto", "varlen", "flash_attention_2", "flex_attention", "sdpa", "eager"] = "auto"
    checkpoint_every: PositiveInt = 486
    checkpoints_kept: PositiveInt = 2
    async_checkpoints: bool = True
    validate_every: PositiveInt = 486
    position_bin: PositiveInt = 1024
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    push_to: str = ""

    @property
    def num_labels(self) -> int:
        """Outputs of the head: three classes, or one logit."""
        return 3 if self.loss == "outcome" else 1


@dataclass(frozen=True)
class Variant:
    """One more search to evaluate; exactly one of `beam`, `mcts` and `rebase` is its shape.

    Attributes:
        name: its methods are called `{name}_weighted_majority` and so on.
    """

    name: NonEmptyStr
    beam: Beam | None = None
    mcts: Mcts | None = None
    rebase: Rebase | None = None

    def __post_init__(self) -> None:
        if sum(shape is not None for shape in (self.beam, self.mcts, self.rebase)) != 1:
            raise ValueError(f"variant {self.name!r} must have one shape, beam, mcts or rebase: give it one")
        if self.name in ("sample", "beam", "vgs"):
            raise ValueError(f"variant {self.name!r} has the name of a search that is always there: call it otherwise")

    @property
    def shape(self) -> Beam | Mcts | Rebase:
        """The one that is given."""
        shape = self.beam or self.mcts or self.rebase
        assert shape is not None, "checked when it was made"
        return shape


@dataclass(frozen=True)
class Evaluate:
    """Methods on benchmark problems.

    Attributes:
        benchmarks: each is `sandbox`, a name (aime-24, aime-25, hmmt-feb-24, hmmt-feb-25, math-500, gsm8k: Hugging Face data sets
            at a pinned revision), or a source with columns problem and answer: a local .parquet or .jsonl, or a data set id.
        benchmark_folder: folder with copies of the named ones, such as aime-24.jsonl, for machines without the hub.
        value_model: folder or hub id of a value model or of a process reward model (Qwen2, Qwen3 or Llama with a head for
            sequence or token classification); `random` scores at random. Empty is what stage train left.
        limit: problems taken from the start of each benchmark; 0 takes all.
        samples: independent samples for each problem; every smaller budget comes from regrouping them.
        beam: the guided search at the largest budget; smaller budgets take fewer groups.
        variants: other searches, each beside those two. A tree search has one budget: the blocks that it samples at most.
        budgets: budgets in the report.
        confidence: with which an adaptive vote counts as decided, over 0.5 and at most 1; 0 leaves adaptive votes out.
        sampling: of the policy.
        policy_engine, value_engine: the two engines; they run side by side in one actor.
        concurrent: problems that one actor works on at a time.
        bootstrap: resamples for the intervals.
    """

    benchmarks: Annotated[tuple[NonEmptyStr, ...], MinLen(1)] = ("sandbox",)
    benchmark_folder: str = ""
    value_model: str = ""
    limit: NonNegativeInt = 0
    samples: PositiveInt = 16
    beam: Beam = Beam(groups=4)
    variants: tuple[Variant, ...] = ()
    budgets: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (4, 8, 16)
    confidence: Share = 0.95
    sampling: Sampling = Sampling()
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5, num_gpus=0.5)
    value_engine: Engine = Engine(gpu_memory_utilization=0.4, num_gpus=0.5)
    concurrent: PositiveInt = 64
    bootstrap: PositiveInt = 2000


@dataclass(frozen=True)
class Serve:
    """The endpoint.

    Attributes:
        host, port: address that the proxy listens on.
        model_name: what `/v1/models` lists.
        value_model: as in `Evaluate`.
        beam: the search of a request that names none.
        sampling: of a request that sets none.
        layout: `together` holds a policy and a value engine in the process of each search replica: nothing crosses a process for
            a block, which suits tiny models. `apart` gives each its own replicas, which the searches share: engines scale on
            their own, and a search survives the death of one.
        replicas: of the search (with their engines where they are together).
        policy_engine, value_engine: the engines; their `replicas` count where they are apart.
        policy_max_replicas, value_max_replicas: how far these grow with the beams in flight; 0 keeps their number.
        block_timeout_s: seconds for one block or one score, with the wait for a replica that replaces a dead one; then 503.
        max_budget: largest budget that a request may ask for.
        max_beams: beams that one replica runs at a time, over all its searches; a search that does not fit waits.
        max_waiting: searches that wait in one replica; more are refused with 429.
        max_problem_chars: longest problem text that is accepted.
        request_timeout_s: seconds in which a request's headers and body have to arrive; then 408.
        connections_per_address: connections that one client address may have open at HAProxy; 0 for no limit. Clients behind one
            proxy or NAT share an address.
        cors_origins: origins whose pages a browser lets ask, such as `https://chat.example`; `*` means all.
        log_requests: write each problem and what was found into the log of its search replica.
    """

    host: NonEmptyStr = "127.0.0.1"
    port: Port = 8000
    model_name: NonEmptyStr = "vgs"
    value_model: str = ""
    beam: Beam = Beam(keep=2, branch=2, groups=4)
    sampling: Sampling = Sampling()
    layout: Literal["together", "apart"] = "apart"
    replicas: PositiveInt = 1
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5, num_gpus=0.5)
    value_engine: Engine = Engine(gpu_memory_utilization=0.4, num_gpus=0.5)
    policy_max_replicas: NonNegativeInt = 0
    value_max_replicas: NonNegativeInt = 0
    block_timeout_s: PositiveFloat = 1800.0
    max_budget: PositiveInt = 256
    max_beams: PositiveInt = 1024
    max_waiting: NonNegativeInt = 64
    max_problem_chars: PositiveInt = 16384
    request_timeout_s: PositiveFloat = 30.0
    connections_per_address: NonNegativeInt = 5000
    cors_origins: tuple[NonEmptyStr, ...] = ()
    log_requests: bool = False
