"""The result of a search: its answers, the classes of equal answers, and the selected one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vgs_ray.engines.interface import FinishReason, Usage
from vgs_ray.prompts import END_OF_THOUGHT, THINK

NEAR_TIE = 0.9
"""A vote is undecided if the second class has at least this share of the winner's weight."""


@dataclass(frozen=True)
class Leaf:
    """One answer of the search tree.

    Attributes:
        node: id of the tree node where it ends.
        text: the whole response.
        answer: None if the response was cut off or has no box.
        tokens: length of the response.
    """

    node: int
    text: str
    answer: str | None
    value: float | None
    group: int
    tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True)
class Vote:
    """A class of equal answers.

    Attributes:
        leaf: index of the leaf with the highest value, which represents the class.
        leaves: indices of all its leaves.
    """

    leaf: int
    leaves: tuple[int, ...]
    weight: float


class TokenLogprob(NamedTuple):
    """A token's text and natural log-probability. A token that ends inside of a character has no text: the next one has
    all of it."""

    text: str
    logprob: float


class Content(NamedTuple):
    """A text in the form that the request asks for. `length`: it was cut off, or its response was."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        leaves: all answers.
        votes: classes of equal answers, the winner first; empty if no response has an answer.
        choices: indices of the leaves to return, the selected one first (see `ranked`).
        prompt_tokens: number of tokens in the prompt, counted once.
        usage: tokens of the tree as the engines counted them.
        seed: repeats the search.
        seconds: wall-clock time, including the vote.
        late: the deadline ended the search.
        flops: floating-point operations of both models, counted as in evaluation; None if a model's size is unknown.
        warnings: changes that the server made to the request.
        decided_after: number of groups whose answers decided the vote, so that the others were cancelled; None if no vote did.
        probability: see `probability.probability_of`.
        logprobs: for each choice, of the tokens of its content; empty if not requested.
        min_confidence: the lowest probability with which the answer is given; None always gives it.
        contents: for each choice, its content in the requested form; empty without one.
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
    decided_after: int | None = None
    probability: float | None = None
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    min_confidence: float | None = None
    contents: tuple[Content, ...] = ()

    @property
    def selected(self) -> int:
        """Index of the selected leaf."""
        return self.choices[0]

    @property
    def share(self) -> float | None:
        """The selected class's share of the weight of all votes."""
        return vote_share(self.votes)

    @property
    def refusal(self) -> str | None:
        """The text in place of an answer whose probability is too low, or unknown; None if the answer is given."""
        least, found = self.min_confidence, self.probability
        if least is None or (found is not None and found >= least):
            return None
        told = "unknown" if found is None else f"{found:.3f}"
        return (
            f"No answer is given: the probability that it is correct is {told}, and search.min_confidence is {least:g}."
        )

    @property
    def undecided(self) -> bool:
        """Whether another answer has almost the same weight as the selected one."""
        return len(self.votes) > 1 and self.votes[1].weight >= NEAR_TIE * self.votes[0].weight

    def finish_reason(self, choice: int = 0) -> FinishReason:
        """The finish reason of a choice; `length` if the deadline ended the search."""
        if self.late:
            return "length"
        return (self.contents[choice] if self.contents else self.leaves[self.choices[choice]]).finish_reason

    def thought_and_content(self, choice: int = 0) -> tuple[str, str]:
        """The thought and the content of a choice. A content of a form follows the whole response, which is then the thought."""
        thought, content = split_thought(self.leaves[self.choices[choice]].text)
        if not self.contents:
            return thought, content
        return "\n\n".join(filter(None, (thought, content))), self.contents[choice].text


def vote_share(votes: Sequence[Vote]) -> float | None:
    """The first class's share of the weight of all votes; None if they have no weight."""
    total = sum(vote.weight for vote in votes)
    return votes[0].weight / total if total else None


def ranked(leaves: Sequence[Leaf], votes: Sequence[Vote]) -> tuple[int, ...]:
    """Indices of all leaves, the best first: each vote's representative in the votes' order, then the others by value."""
    representatives = [vote.leaf for vote in votes]
    others = set(range(len(leaves))) - set(representatives)
    return *representatives, *sorted(others, key=lambda index: (rank_key(leaves[index]), -index), reverse=True)


def rank_key(leaf: Leaf) -> tuple[bool, float]:
    """Sort key of leaves: finished ones are greater, then those with a higher value."""
    return leaf.finish_reason == "stop", -1.0 if leaf.value is None else leaf.value


def split_thought(text: str) -> tuple[str, str]:
    """Split a response into its thought and the content after it; the content of an unfinished thought is empty."""
    thought, _, content = text.partition(END_OF_THOUGHT)
    return thought.removeprefix(THINK).strip(), content.strip()
