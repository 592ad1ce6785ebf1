"""Shapes of a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from vgs_ray.config.ranges import NonEmptyStr, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share


@dataclass(frozen=True)
class Beam:
    """A beam search by value: `groups` independent beams, each of which keeps `keep` of `keep * branch` blocks."""

    keep: PositiveInt = 2
    """Prefixes kept after each block."""
    branch: PositiveInt = 2
    """Blocks sampled from each kept prefix. It is the width w of arXiv 2505.17373."""
    block: PositiveInt = 4096
    """Tokens in a block."""
    groups: PositiveInt = 1
    """Independent beams, whose answers vote together. More than one is DVTS."""
    delimiter: str = ""
    """Text that ends a block early, such as a blank line (TVM, SVPO). If empty, only the number of tokens counts."""
    rank: Literal["tree", "parent"] = "tree"
    """`tree` keeps the best blocks of a group, whatever prefix they extend (arXiv 2505.17373). `parent` keeps the best block of
    each prefix, which keeps a group diverse."""
    finished: Literal["retire", "reinvest", "compete"] = "retire"
    """What happens to a finished beam. `retire` takes it out of the comparison and drops its width (arXiv 2505.17373). `reinvest`
    also takes it out, and samples more blocks from the remaining prefixes. `compete` compares it with the blocks of later rounds,
    which can displace it (AlphaMath, arXiv 2405.03553)."""
    choose: Literal["value", "random"] = "value"
    """Keep blocks by value, or at random. The latter is an ablation of arXiv 2505.17373."""
    likelihood: NonNegativeFloat = 0.0
    """Weight c of the likelihood: blocks are ranked by value * exp(c * mean log-probability of the prefix that ends with them).
    0 ranks by value alone (arXiv 2505.17373)."""
    start: NonNegativeInt = 0
    """Blocks of the first round, if more than `keep * branch`. With `branch` 1, the search prunes once: it starts N prefixes,
    keeps the best `keep` and finishes them (STOP, arXiv 2604.16029)."""
    branch_entropy: NonNegativeFloat = 0.0
    """Branch only after blocks of this mean entropy (nats) or more. After others, one block is sampled (arXiv 2503.21961). The
    entropy is estimated by the log-probabilities of the block's tokens."""
    align: bool = False
    """End blocks where the engines' cache blocks do, near `block` tokens. Then prefixes are not read again because their
    last cache block is incomplete. It matters for short blocks: cache blocks have 16 tokens on GPUs and 32 on CPU."""

    @property
    def budget(self) -> int:
        """Sequences that are generated in parallel in each round: N in the papers."""
        return self.width * self.groups

    @property
    def width(self) -> int:
        """Largest number of blocks in a round of a group."""
        return max(self.keep * self.branch, self.start)

    @property
    def needs_logprobs(self) -> bool:
        """Whether the search reads the log-probabilities of the policy's tokens."""
        return self.likelihood > 0 or self.branch_entropy > 0


@dataclass(frozen=True)
class Mcts:
    """A Monte Carlo tree search."""

    simulations: PositiveInt = 16
    """Descents from the root."""
    width: PositiveInt = 4
    """Blocks sampled when a prefix is expanded."""
    depth: PositiveInt = 16
    """Maximum number of blocks in a path. A path that is not finished by then gives no answer."""
    block: PositiveInt = 1024
    """Tokens in a block."""
    delimiter: str = ""
    """Text that ends a block early, as for the beam search."""
    c_puct: NonNegativeFloat = 1.25
    """Weight of the exploration term."""
    parallel: PositiveInt = 4
    """Descents that run in parallel. Each counts the unfinished ones as visits with the lowest value."""
    prior: Literal["uniform", "likelihood"] = "uniform"
    """Prior of a block: equal for all blocks of a prefix, with the sum 1, or exp(mean log-probability of its tokens) as in
    AlphaMath (arXiv 2405.03553)."""
    back_up: Literal["blocks", "prefix"] = "blocks"
    """Values that a descent backs up: those of all blocks that it samples, in [0, 1]; or only that of the prefix that it expands,
    in [-1, 1], and those of finished answers, which are not selected again (AlphaMath)."""


def alphamath(**changes: Any) -> Mcts:
    """The tree search of AlphaMath (arXiv 2405.03553), on which SVPO builds (arXiv 2406.10858).

    Args:
        changes: fields of `Mcts` with other values.
    """
    published = Mcts(
        simulations=40,
        width=5,
        depth=8,
        delimiter="\n\n",
        c_puct=1.25,
        parallel=1,
        prior="likelihood",
        back_up="prefix",
    )
    return replace(published, **changes)


@dataclass(frozen=True)
class Rebase:
    """A reward-balanced search (REBASE, arXiv 2408.00724)."""

    width: PositiveInt = 16
    """Blocks in a round, minus the answers that are finished."""
    block: PositiveInt = 1024
    """Tokens in a block."""
    delimiter: str = ""
    """Text that ends a block early, as for the beam search."""
    temperature: PositiveFloat = 0.2
    """Temperature of the softmax over values that distributes the blocks. A low one favours the best prefix."""


@dataclass(frozen=True)
class ParticleFilter:
    """A particle filter with entropic annealing (ePF, arXiv 2510.05825)."""

    width: PositiveInt = 16
    """Particles: blocks in a round, minus the answers that are finished."""
    block: PositiveInt = 1024
    """Tokens in a block."""
    delimiter: str = ""
    """Text that ends a block early, as for the beam search."""
    effective: Share = 0.5
    """Least effective sample size, as a share of the particles. Weights with a smaller one are annealed. 0 does not anneal (PF,
    arXiv 2502.01618)."""


@dataclass(frozen=True)
class DeepConf:
    """Samples that are filtered and weighted by the policy's own confidence, without a value model (DeepConf, arXiv 2508.15260).

    The confidence of an answer is that of its least likely window of tokens."""

    width: PositiveInt = 16
    """Samples."""
    block: PositiveInt = 2048
    """Tokens in a window."""
    delimiter: str = ""
    """Text that ends a window early, as for the beam search."""
    top: Share = 0.5
    """Share of the answers that vote: those with the highest confidence."""
    warmup: NonNegativeInt = 0
    """Samples that set the threshold below which a window stops any further sample. 0 stops none."""


Shape = Beam | Mcts | Rebase | ParticleFilter | DeepConf


@dataclass(frozen=True)
class Variant:
    """An additional search to evaluate. Exactly one of its shapes is set."""

    name: NonEmptyStr
    """Prefix of its methods in the report, such as `{name}_weighted_majority`."""
    beam: Beam | None = None
    """A beam search."""
    mcts: Mcts | None = None
    """A Monte Carlo tree search."""
    rebase: Rebase | None = None
    """A reward-balanced search."""
    particles: ParticleFilter | None = None
    """A particle filter."""
    deepconf: DeepConf | None = None
    """Samples that are filtered by confidence."""
    confidence: Share = 0.0
    """Confidence, over 0.5, at which the vote of a beam search is decided: groups that have not voted by then are cancelled.
    0 runs all groups."""
    stop: Literal["best", "majority", "weighted_majority"] = "weighted_majority"
    """Selector that `confidence` is about. With `best`, the search ends when an answer's value reaches `confidence`."""

    def __post_init__(self) -> None:
        if sum(shape is not None for shape in self._shapes) != 1:
            raise ValueError(
                f"variant {self.name!r} must have exactly one of beam, mcts, rebase, particles and deepconf: set one of them"
            )
        if self.name in ("sample", "beam", "vgs", "greedy"):
            raise ValueError(f"variant {self.name!r} has the name of a built-in search: rename it")
        if self.confidence and not (self.beam and self.confidence > 0.5):
            raise ValueError(
                f"variant {self.name!r} has the confidence {self.confidence}; it must be over 0.5 and the search a beam, or 0: "
                "choose one such as 0.95"
            )

    @property
    def _shapes(self) -> tuple[Shape | None, ...]:
        return self.beam, self.mcts, self.rebase, self.particles, self.deepconf

    @property
    def shape(self) -> Shape:
        """The shape that is set."""
        return next(shape for shape in self._shapes if shape is not None)
