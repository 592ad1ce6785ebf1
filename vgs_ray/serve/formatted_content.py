"""Contents in the form that a request asks for.

The search is the same as without a form: its boxed answers vote. Then the policy continues each chosen response once more, and
the engine lets it write text of the grammar only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Grammar, Policy, SamplingWithGrammar, UnusableGrammar
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search.flops import ModelSizes, block_flops
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Tree
from vgs_ray.serve.search_result import Content, Leaf, SearchResult

SEPARATOR = "\n\n"
"""Between a response and its formatted content."""


class Formatted(NamedTuple):
    """A content, and what it cost.

    Attributes:
        before: number of tokens before it.
        completion: its tokens; None if the response was cut off, or left no room.
    """

    content: Content
    before: int = 0
    completion: Completion | None = None


CUT_OFF = Formatted(Content("", "length"))


async def with_contents(
    result: SearchResult, tree: Tree, writer: ContentWriter, max_tokens: int, sizes: ModelSizes | None
) -> SearchResult:
    """The result with a content for each choice, and with their tokens, time and FLOPs.

    Args:
        result: of a search.
        tree: of the same search.
        writer: writes the contents.
        max_tokens: of each content.
        sizes: of both models; None if unknown.

    Raises:
        UnusableGrammar: as `ContentWriter.after`.
    """
    started, usage, flops = time.perf_counter(), copy(result.usage), result.flops
    leaves = [result.leaves[choice] for choice in result.choices]
    made = await gather_or_cancel(writer.after(tree, leaf, max_tokens) for leaf in leaves)
    for _, before, completion in made:
        if completion:
            usage.generated += len(completion.tokens)
            usage.prefilled += completion.prefilled
            usage.cached += before - completion.prefilled
            if flops is not None and sizes:
                flops += block_flops(sizes.policy, before, len(completion.tokens), completion.prefilled)
    return replace(
        result,
        contents=tuple(each.content for each in made),
        usage=usage,
        flops=flops,
        seconds=result.seconds + time.perf_counter() - started,
        warnings=(*result.warnings, *_contradictions(leaves[0].answer, made[0].content)),
    )


def _contradictions(answer: str | None, content: Content) -> list[str]:
    """A warning if the content lacks the answer of the vote: a policy may not copy it."""
    if answer is None or content.finish_reason != "stop" or answer in content.text:
        return []
    return [f"the content does not contain the answer of the vote, {answer}: the policy wrote another one in this form"]


@dataclass(frozen=True)
class ContentWriter:
    """Writes contents of one grammar.

    Attributes:
        policy: generates them.
        tokenize, decode: text to tokens, and back.
        grammar: of the contents.
        context: length in tokens of the longest sequence.
    """

    policy: Policy
    tokenize: Callable[[str], Tokens]
    decode: Callable[[Tokens], str]
    grammar: Grammar
    context: int

    async def check(self, prompt: Tokens) -> None:
        """Let the engine compile the grammar, for one token after `prompt`.

        Raises:
            UnusableGrammar: the engine can't use it.
        """
        await self._extend(prompt, 1)

    async def after(self, tree: Tree, leaf: Leaf, max_tokens: int) -> Formatted:
        """The content after a response, with greedy decoding. It is cut off after `max_tokens` tokens.

        Raises:
            UnusableGrammar: the engine can't use the grammar, or the policy has no tokens for it.
        """
        if leaf.finish_reason != "stop":
            return CUT_OFF
        prefix = tree.prompt + self._without_end(tree.path(leaf.node)) + self.tokenize(SEPARATOR)
        room = min(max_tokens, self.context - len(prefix))
        if room < 1:
            return CUT_OFF
        completion = await self._extend(prefix, room)
        text = self._text(completion.tokens)
        if completion.finish_reason == "stop" and not self._fits(text):
            raise UnusableGrammar(f"the policy wrote {text[:40]!r}: its vocabulary may lack characters of the grammar")
        return Formatted(Content(text, completion.finish_reason), len(prefix), completion)

    async def _extend(self, prefix: Tokens, max_tokens: int) -> Completion:
        sampling = SamplingWithGrammar(temperature=0.0, top_p=1.0, max_tokens=max_tokens, grammar=self.grammar)
        return await self.policy.extend(prefix, sampling, 0)

    def _without_end(self, response: Tokens) -> Tokens:
        """The response without its end-of-sequence token, which has no text."""
        return response[:-1] if self.decode(response[:-1]) == self.decode(response) else response

    def _text(self, tokens: Tokens) -> str:
        # `decode` adds the end of a thought if the prompt does not open one.
        return self.decode(tokens).removeprefix(END_OF_THOUGHT).strip()

    def _fits(self, text: str) -> bool:
        if self.grammar.kind == "regex":
            return bool(text)
        try:
            json.loads(text)
        except ValueError:
            return False
        return True
