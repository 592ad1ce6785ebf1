"""Log-probabilities of the tokens of an answer.

The engines return them with each block of a search that asks for them. The tree does not keep them, so a `Policy` around the
engine's does.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, SamplingWithLogprobs
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search.tree import Tree
from vgs_ray.serve.search_result import Leaf, TokenLogprob, split_thought


class LogprobPolicy:
    """A `Policy` for one search that keeps the log-probabilities of its tokens.

    Args:
        policy: generates the tokens.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.usage = policy, policy.usage
        self._kept: dict[int, array[float]] = {}  # by the hash of the sequence: the sequences would take more memory

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`."""
        completion = await self.policy.extend(prefix, SamplingWithLogprobs(**vars(sampling)), seed)
        self._kept[hash(prefix + completion.tokens)] = array("d", completion.logprobs or ())
        return completion

    def of(self, tree: Tree, leaf: int) -> list[float]:
        """The log-probabilities of all tokens of an answer."""
        sequence, node, blocks = tree.prompt + tree.path(leaf), tree.nodes[leaf], []
        while node.parent is not None:
            blocks.append(self._kept[hash(sequence[: len(tree.prompt) + tree.end(node.id)])])
            node = tree.nodes[node.parent]
        return [logprob for block in reversed(blocks) for logprob in block]


class Span(NamedTuple):
    """Characters of a text."""

    start: int
    end: int


def answer_logprobs(
    policy: LogprobPolicy, tree: Tree, leaf: Leaf, pieces: Callable[[Tokens], list[str]], mark: str, raw: bool
) -> tuple[TokenLogprob, ...]:
    """The tokens of the content after the thought, or of the whole text of a raw completion, with their log-probabilities.

    Tokens at the edges may have whitespace that the content does not have. The end-of-sequence token has no text and is not among
    them.

    Args:
        policy: of the search.
        tree: of the search.
        leaf: the answer.
        pieces: tokens to the text of each token.
        mark: what the text of a response starts with if its prompt does not open a thought.
        raw: the answer continues a prompt without chat template.
    """
    texts = pieces(tree.path(leaf.node))
    whole = "".join(texts)
    content = Span(0, len(leaf.text)) if raw else _content(whole, leaf.text, mark)
    placed = zip(texts, policy.of(tree, leaf.node), _spans(texts), strict=True)
    return tuple(TokenLogprob(text, logprob) for text, logprob, span in placed if _overlaps(span, content))


def _content(whole: str, text: str, mark: str) -> Span:
    """Where the content of a response is in `whole`. `text` may end before it, at a stop string."""
    _, content = split_thought(text)
    _, end_of_thought, after = (mark + whole).partition(END_OF_THOUGHT)
    start = len(whole) - len(after.lstrip()) if end_of_thought else len(whole)
    return Span(start, start + len(content))


def _spans(texts: list[str]) -> Iterator[Span]:
    ends = list(accumulate(map(len, texts)))
    return map(Span, [0, *ends], ends)


def _overlaps(span: Span, content: Span) -> bool:
    """Whether a token has a part of the content. A token without text, inside of a character, is part of the next one."""
    return span.start < content.end and (span.end > content.start or span.start >= content.start)
