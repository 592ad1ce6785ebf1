"""What a search found: its answers, their classes, and which of them is the reply. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgs_ray.engines.interface import FinishReason, Usage
from vgs_ray.prompts import END_OF_THOUGHT, THINK


@dataclass(frozen=True)
class Leaf:
    """One answer of the tree, which ends at `node`; `answer` is None when it was cut off or has no box."""

    node: int
    text: str
    answer: str | None
    value: float | None
    group: int
    tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True)
class Vote:
    """Answers that count as the same, spoken for by `leaf`, the one with the highest value."""

    leaf: int
    leaves: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        leaves: all answers.
        votes: classes of equal answers, the winner first; empty when nobody answered.
        choices: indices of the leaves that are the reply, the chosen one first (see `ranked`).
        prompt_tokens: of the prompt, once.
        usage: tokens of the tree, as the engines counted them.
        seed: from which the search can be repeated.
        seconds: wall clock, with the vote.
        late: the deadline cut the search short.
        flops: floating-point operations of both models, counted as in evaluation; None where their sizes are unknown.
        warnings: what of the request was changed.
    """

    leaves: tuple[Leaf, ...]
    votes: tuple[Vote, ...]
    choices: tuple[int, ...]
    prompt_tokens: int
    usage: Usage
    seed: int
    seconds: float
    late: bool = False
    flops: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chosen(self) -> int:
        """Index of the leaf that won."""
        return self.choices[0]

    def finish_reason(self, leaf: int) -> FinishReason:
        """Of a choice: `length` also where a deadline ended the search."""
        return "length" if self.late else self.leaves[leaf].finish_reason


def ranked(leaves: Sequence[Leaf], votes: Sequence[Vote]) -> tuple[int, ...]:
    """Indices of all leaves, the best first: who speaks for each vote, in their order, then the others by value."""
    speakers = [vote.leaf for vote in votes]
    others = sorted(set(range(len(leaves))) - set(speakers), key=lambda at: (standing(leaves[at]), -at), reverse=True)
    return *speakers, *others


def split_thought(text: str) -> tuple[str, str]:
    """(thought, what follows it); an unfinished thought is followed by nothing."""
    thought, _, content = text.partition(END_OF_THOUGHT)
    return thought.removeprefix(THINK).strip(), content.strip()


def standing(leaf: Leaf) -> tuple[bool, float]:
    """Order among leaves: finished ones first, then by value."""
    return leaf.finish_reason == "stop", -1.0 if leaf.value is None else leaf.value
