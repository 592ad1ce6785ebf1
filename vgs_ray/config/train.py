"""Training of the value model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from vgs_ray.config.identity import OPERATION
from vgs_ray.config.ranges import (
    Labels,
    Model,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareBelowOne,
)

Loss = Literal["outcome", "soft", "mse", "bradley_terry"]


@dataclass(frozen=True)
class Train:
    """Fit the value model (arXiv 2505.17373, appendix E)."""

    init: Model = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    """Model to initialize the backbone from."""
    loss: Loss = "outcome"
    """`outcome` predicts the class of the finished answer at every roll-out token (VGS). `soft` and `mse` fit the value of each
    token, by cross-entropy or squared error (TVM). `bradley_terry` ranks correct answers above incorrect ones."""
    max_length: NonNegativeInt = 0
    """Maximum length of a training sequence in tokens, prompt included; 0 is the longest that stage roll_out can write, and a
    lower value is refused. docs/training.md describes what happens to longer imported sequences."""
    batch_size: PositiveInt = 1024
    """Sequences in one optimizer step, over all workers."""
    micro_tokens: Annotated[PositiveInt, OPERATION] = 16384
    """Tokens in one forward pass of one worker, at least `max_length`. It determines the peak memory."""
    steps: NonNegativeInt = 12170
    """Number of optimizer steps; 0 takes as many as `epochs` needs."""
    epochs: PositiveInt = 1
    """Passes over the training sequences if `steps` is 0. The last step is filled up from the next pass."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    min_lr_share: Share = 0.1
    """Final learning rate as a share of the peak."""
    warmup_share: Share = 0.05
    """Share of the steps that warm up."""
    min_warmup_steps: NonNegativeInt = 100
    """Minimum number of warmup steps."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    """Betas of AdamW."""
    eps: PositiveFloat = 1e-6
    """Epsilon of AdamW."""
    weight_decay: NonNegativeFloat = 0.1
    """Weight decay of AdamW, applied to matrices and embeddings only."""
    clip_norm: PositiveFloat = 5.0
    """Maximum norm of the gradient."""
    dropout: ShareBelowOne = 0.05
    """Dropout before the head."""
    attention_dropout: ShareBelowOne = 0.0
    """Dropout in attention. On a GPU, only FlashAttention 2 supports it for packed sequences; see docs/training.md."""
    trained_layers: NonNegativeInt = 0
    """Train only the head, the last norm and this many last layers, which is cheaper; 0 trains everything. MFU counts all layers
    in both cases."""
    share_policy: bool = False
    """Write the policy with the trained layers as its value head, instead of a separate value model. One engine then samples and
    scores in the same forward pass, and a value costs the FLOPs of `trained_layers` layers. `init` must be the policy."""
    group_size: PositiveInt = 2
    """Number of responses to one problem that stay together in the shuffle."""
    workers: Annotated[PositiveInt, OPERATION] = 8
    """Number of training processes."""
    min_workers: Annotated[NonNegativeInt, OPERATION] = 0
    """Continue with this many workers if a node is lost, and grow to `workers` again later; 0 waits for all of them."""
    cpus_per_worker: Annotated[PositiveFloat, OPERATION] = 1.0
    """CPUs that Ray reserves for each worker."""
    gpus_per_worker: Annotated[NonNegativeFloat, OPERATION] = 1.0
    """GPUs that Ray reserves for each worker."""
    nodes: Annotated[Labels, OPERATION] = ()
    """Labels of the nodes that may hold workers, as in `roll_out.resources.nodes`."""
    max_failures: Annotated[NonNegativeInt, OPERATION] = 3
    """Number of restarts from the last checkpoint before the stage fails."""
    timeout_s: Annotated[PositiveInt, OPERATION] = 300
    """Seconds after which a collective operation fails because a worker is lost."""
    shard_size: Annotated[NonNegativeInt, OPERATION] = 0
    """Number of workers that share one copy of the weights and the optimizer (FSDP2): 0 means the workers of one node, or all
    workers if a node has one, and 1 no sharding. With several copies this is HSDP. If the number of workers is not a multiple of
    it, their greatest common divisor is used."""
    reshard: Annotated[bool, OPERATION] = False
    """Free the gathered weights after each forward and backward pass: less memory, more communication."""
    activations: Annotated[Literal["auto", "keep", "budget", "checkpoint"], OPERATION] = "auto"
    """What the forward pass keeps for the backward pass: everything (`keep`), about half, chosen by the compiler (`budget`), or
    the inputs of the layers, which then run twice (`checkpoint`). `auto` takes the first that fits the GPU."""
    compile: Annotated[bool, OPERATION] = True
    """Compile each layer with torch.compile, which takes a minute or two at the start and needs a C++ compiler."""
    bf16: Annotated[bool, OPERATION] = False
    """Compute in bfloat16 on a CPU too, as a GPU always does. Faster if the CPU has AVX-512 BF16 instructions, slower if not."""
    attention: Annotated[
        Literal["auto", "varlen", "varlen_fa3", "varlen_fa4", "flash_attention_2", "flex_attention", "sdpa", "eager"],
        OPERATION,
    ] = "auto"
    """Attention implementation. `auto` takes the fastest that is installed and supports the GPU (docs/training.md). `sdpa` and
    `eager` need a mask over the packed row, and are refused on a GPU for rows of more than 4,096 tokens."""
    checkpoint_every: Annotated[PositiveInt, OPERATION] = 486
    """Steps between checkpoints."""
    checkpoints_kept: Annotated[PositiveInt, OPERATION] = 2
    """Number of checkpoints to keep."""
    async_checkpoints: Annotated[bool, OPERATION] = True
    """Write checkpoints while training continues, which needs memory for a copy of the state."""
    validate_every: Annotated[PositiveInt, OPERATION] = 486
    """Steps between validations."""
    position_bin: Annotated[PositiveInt, OPERATION] = 1024
    """Width in tokens of the bins of the accuracy by position."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], OPERATION] = ("tensorboard",)
    """Experiment trackers to log to, in addition to `metrics.jsonl`."""
    push_to: Annotated[str, OPERATION] = ""
    """Hugging Face repository to push the finished model to; empty pushes nothing. Needs HF_TOKEN."""

    @property
    def num_labels(self) -> int:
        """Outputs of the head: three classes, or one logit."""
        return 3 if self.loss == "outcome" else 1


def shard_count(shard_size: int, workers: int, per_node: int = 0) -> int:
    """Number of workers that share one copy of the model.

    Args:
        shard_size: see `Train`.
        workers: number of workers.
        per_node: number of workers that each node has, or a common divisor of the numbers; 0 if unknown.
    """
    if not shard_size and per_node > 1:
        shard_size = per_node
    return math.gcd(shard_size, workers)  # gcd(0, n) is n
