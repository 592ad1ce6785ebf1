"""Configuration of what runs a model: sampling, engines, and the shape of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgs_ray.config.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    Penalty,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Share,
)


@dataclass(frozen=True)
class Sampling:
    """How a policy samples.

    Attributes:
        temperature: softmax temperature; 0 is greedy.
        top_p: nucleus mass.
        max_tokens: longest response in tokens (prompt not counted); for one block, the longest block.
        stop_token_ids: tokens that end a block (a delimiter); the token itself is kept.
        top_k: tokens that may be sampled, the most probable ones; 0 is all.
        min_p: least probability of a token that may be sampled, as a share of the most probable token's; 0 is none.
        repetition_penalty: divides positive and multiplies negative logits of tokens that the prompt or the response has
            (arXiv 1909.05858); 1 is none.
    """

    temperature: NonNegativeFloat = 0.6
    top_p: PositiveShare = 0.95
    max_tokens: PositiveInt = 16384
    stop_token_ids: tuple[NonNegativeInt, ...] = ()
    top_k: NonNegativeInt = 0
    min_p: Share = 0.0
    repetition_penalty: Penalty = 1.0


@dataclass(frozen=True)
class Engine:
    """One vLLM engine and how many of them run.

    Attributes:
        replicas: engines started for this model.
        starts_at_once: engines that start at the same time on one machine; the others wait for their turn.
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

    replicas: PositiveInt = 1
    starts_at_once: PositiveInt = 2
    tensor_parallel_size: PositiveInt = 1
    num_cpus: NonNegativeFloat = 1.0
    num_gpus: NonNegativeFloat = 1.0
    max_model_len: PositiveInt = 17408
    max_num_seqs: PositiveInt = 256
    gpu_memory_utilization: PositiveShare = 0.9
    kv_cache_gib: PositiveFloat = 1.0
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    enforce_eager: bool = False
    threads: NonNegativeInt = 0


@dataclass(frozen=True)
class Beam:
    """Shape of the guided search: `groups` independent beams that keep `keep` of `keep * branch` blocks.

    Attributes:
        keep: prefixes kept after each block.
        branch: blocks sampled from each kept prefix (the paper's width w).
        block: tokens of one block.
        groups: independent beams whose answers vote together (DVTS when more than 1).
        delimiter: text that ends a block early, such as a blank line for steps (TVM, SVPO); empty goes by tokens alone.
        rank: `tree` keeps the best candidates of a group, whatever prefix they extend (the paper); `parent` keeps the best
            candidate of each prefix, which keeps a group diverse.
        finished: what becomes of the width of a finished beam. `retire` gives it up (the paper); `reinvest` samples as many more
            blocks from the prefixes that are live.
        choose: survivors by value, or at random (the paper's ablation).
    """

    keep: PositiveInt = 2
    branch: PositiveInt = 2
    block: PositiveInt = 4096
    groups: PositiveInt = 1
    delimiter: str = ""
    rank: Literal["tree", "parent"] = "tree"
    finished: Literal["retire", "reinvest"] = "retire"
    choose: Literal["value", "random"] = "value"

    @property
    def budget(self) -> int:
        """Generations side by side in each round: what the papers call N."""
        return self.keep * self.branch * self.groups


@dataclass(frozen=True)
class Mcts:
    """Shape of a Monte Carlo tree search.

    Attributes:
        simulations: descents from the root.
        width: blocks sampled where a prefix is expanded.
        depth: blocks of the longest path; a path that is not finished there gives no answer.
        block: tokens of one block.
        delimiter: as in `Beam`.
        c_puct: weight of the exploration term.
        parallel: descents that run side by side; each sees the earlier ones as visits without value.
    """

    simulations: PositiveInt = 16
    width: PositiveInt = 4
    depth: PositiveInt = 16
    block: PositiveInt = 1024
    delimiter: str = ""
    c_puct: NonNegativeFloat = 1.25
    parallel: PositiveInt = 4


@dataclass(frozen=True)
class Rebase:
    """Shape of a reward-balanced search (REBASE).

    Attributes:
        width: blocks of a round, less the answers that have ended.
        block: tokens of one block.
        delimiter: as in `Beam`.
        temperature: of the softmax over values that shares the blocks; a low one favours the best prefix.
    """

    width: PositiveInt = 16
    block: PositiveInt = 1024
    delimiter: str = ""
    temperature: PositiveFloat = 0.2
