"""Run one search and vote on its answers. No HTTP here.

In: a `SearchSpec`. Out: a `SearchResult`. The engines batch over all searches of the process. Cancelling `solve` cancels its
engine calls.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

from vgs_ray.answers.judge import Judge
from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH_CONTEXT, Grammar, Policy, SearchContext, UnknownToken, Value, check_tokens
from vgs_ray.prompts import Turn
from vgs_ray.search.answer_probability import FittedProbabilities
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.flops import ModelSizes, tree_flops
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.select import Equivalent
from vgs_ray.search.tree import Listener, Node, Tree
from vgs_ray.serve.equality import equal_within_limit
from vgs_ray.serve.formatted_content import ContentWriter, with_contents
from vgs_ray.serve.logprobs import LogprobPolicy, answer_logprobs
from vgs_ray.serve.probability import probability_of
from vgs_ray.serve.search_result import Leaf, SearchResult, TokenLogprob, ranked
from vgs_ray.serve.search_spec import Conversation, SearchSpec
from vgs_ray.serve.stop_strings import REPLACEMENT, StopStringPolicy
from vgs_ray.serve.tree_answers import leaf_of, vote

T = TypeVar("T")
Models = tuple[Policy, Value, Tokens]
"""The engines of a search, and its prompt."""
PROBE_LIMIT_S = 10.0
PROBE = "1+1"
MAX_UNDECODED = 8
"""Tokens that `pieces` collects for one character before it gives up and takes them as they are."""


class PromptTooLong(ValueError):
    """The prompt is empty or leaves no room for an answer in the engines' context."""


class PromptUnreadable(ValueError):
    """A prompt or sequence has token ids outside of the models' vocabulary."""


class TooLate(RuntimeError):
    """The deadline passed before the first block."""


@dataclass(frozen=True)
class Searcher:
    """Runs searches. All searches share its engines.

    Attributes:
        policy, value: the engines.
        encode: a problem or a conversation to the tokens of its prompt.
        tokenize: any text to its tokens, without template and instruction.
        decode: response tokens to text.
        judge: compares two answers within its limits of time and memory.
        context: length in tokens of the longest sequence that both engines accept.
        sizes: of both models, to count FLOPs; None if unknown.
        vocabulary: number of token ids that tokenizer and models share; None disables the check.
        block_ends: tokens at which a block of a beam also ends: those of the recipe's delimiter.
        cache_block: returns the number of tokens in a block of the engines' caches.
        probabilities: what the evaluation of these models fitted; None without one.
    """

    policy: Policy
    value: Value
    encode: Callable[[str | Sequence[Turn]], Tokens]
    tokenize: Callable[[str], Tokens]
    decode: Callable[[Tokens], str]
    judge: Judge
    context: int
    sizes: ModelSizes | None = None
    vocabulary: int | None = None
    block_ends: Tokens = ()
    cache_block: Callable[[], Awaitable[int]] | None = None
    probabilities: FittedProbabilities | None = None

    async def solve(self, spec: SearchSpec, listen: Listener | None = None, waited_s: float = 0.0) -> SearchResult:
        """Search, then vote.

        Args:
            spec: the problem and how to search.
            listen: called with each node that is added to the tree.
            waited_s: seconds of the deadline that have passed already.

        Raises:
            PromptTooLong: the prompt is empty or fills the engines' context.
            PromptUnreadable: the prompt has unknown token ids.
            ConversationRefused: the policy's chat template has no place for a message.
            TooLate: the deadline passed before the first block.
            UnusableGrammar: the policy can't write the form of the content.
            EngineDied: an engine is unavailable.
        """
        started = time.perf_counter()
        SEARCH_CONTEXT.set(SearchContext(secrets.token_hex(8)))
        seed, prompt = seed_of(spec), self.prompt(spec)
        # An answer ends where the context is full; the engines refuse a prefix that fills it.
        room = self.context - len(prompt)
        sampling = replace(spec.sampling, max_tokens=min(spec.sampling.max_tokens, room))
        policy = self._stopping(len(prompt), spec.stop)
        same = cache(equal_within_limit(self.judge))
        stop = self._early_stop(spec, same)
        recorded = LogprobPolicy(policy) if spec.logprobs else None
        models = recorded or policy, self.value, prompt
        grow = partial(self._grow, models, replace(spec, sampling=sampling), seed=stable_seed(seed), stop=stop)
        left_s = None if spec.deadline_s is None else max(spec.deadline_s - waited_s, 0.0)
        tree, late = await _in_time(grow, left_s, prompt, listen)
        # In a thread, because decoding long answers and sympy would block all other searches.
        leaves, votes = await asyncio.to_thread(vote, tree, spec, self.decode, same)
        if not leaves:
            raise TooLate(f"no block was complete after {spec.deadline_s} s; raise search.deadline_s")
        usage = tree.usage()
        usage.generated += policy.wasted if isinstance(policy, StopStringPolicy) else 0
        flops = tree_flops(tree, *self.sizes) if self.sizes else None
        seconds = time.perf_counter() - started
        choices = ranked(leaves, votes)[: spec.n]
        chosen = [leaves[leaf] for leaf in choices]
        logprobs = await asyncio.to_thread(self._logprobs, recorded, tree, chosen, spec.raw) if recorded else ()
        probability = None if late else probability_of(self.probabilities, spec, leaves, votes)
        result = SearchResult(
            leaves, votes, choices, len(prompt), usage, seed, seconds, late, flops,
            warnings=spec.warnings, decided_after=stop.groups if stop else None, probability=probability,
            logprobs=logprobs, min_confidence=spec.min_confidence,
        )  # fmt: skip
        if not spec.grammar or result.refusal:
            return result
        return await with_contents(result, tree, self._writer(spec.grammar), spec.sampling.max_tokens, self.sizes)

    def _stopping(self, prompt: int, stop: tuple[str, ...]) -> Policy:
        return StopStringPolicy(self.policy, prompt, stop, self.decode, self.pieces) if stop else self.policy

    async def check_grammar(self, grammar: Grammar) -> None:
        """Let the engine compile a grammar before the search. Raises UnusableGrammar if it can't."""
        SEARCH_CONTEXT.set(SearchContext(secrets.token_hex(8), retryable=False))
        await self._writer(grammar).check(self.encode(PROBE))

    def _writer(self, grammar: Grammar) -> ContentWriter:
        return ContentWriter(self.policy, self.tokenize, self.decode, grammar, self.context)

    def prompt(self, spec: SearchSpec) -> Tokens:
        """The prompt's tokens.

        Raises:
            PromptTooLong: it is empty or fills the engines' context.
            PromptUnreadable: it has unknown token ids.
            ConversationRefused: the policy's chat template has no place for a message.
        """
        match spec.problem:
            case str(text):
                tokens = self.tokenize(text) if spec.raw else self.encode(text)
            case Conversation(turns):
                tokens = self.encode(turns)
            case ids:
                tokens = ids
        if not 0 < len(tokens) < self.context:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens; this server accepts 1 to {self.context - 1}: "
                f"{'shorten' if tokens else 'add'} the problem"
            )
        self._check_ids(tokens)
        return tokens

    def _check_ids(self, tokens: Tokens) -> None:
        if self.vocabulary is not None:
            try:
                check_tokens(tokens, self.vocabulary)
            except UnknownToken as error:
                raise PromptUnreadable(str(error)) from None

    def pieces(self, tokens: Tokens) -> list[str]:
        """The text of each token; joined, they are the text of all tokens.

        The last token of a character has its text; the others have none. Each token is decoded together with the previous
        piece, because tokenizers decode the first token of a text differently.
        """
        texts: list[str] = []
        start = end = 0  # of the previous piece
        for stop in range(1, len(tokens) + 1):
            before, text = self.decode(tokens[start:end]), self.decode(tokens[start:stop])
            complete = not text.endswith(REPLACEMENT) or stop == len(tokens) or stop - end >= MAX_UNDECODED
            texts.append(text[len(before) :] if complete else "")
            if complete:
                start, end = end, stop
        return texts

    async def probe(self) -> dict[str, str]:
        """Request one token of each engine. Returns `ok` or a description of the problem, by engine."""
        prompt = self.encode(PROBE)
        one_token = Sampling(temperature=0.0, max_tokens=1)
        SEARCH_CONTEXT.set(SearchContext(""))  # the prompt is harmless, so any replica may repeat the call
        calls = {"policy": self.policy.extend(prompt, one_token, 0), "value": self.value.score(prompt)}

        async def state(call: object) -> str:
            try:
                await asyncio.wait_for(call, PROBE_LIMIT_S)  # type: ignore[arg-type]
            except TimeoutError:
                return f"no token within {PROBE_LIMIT_S:.0f} s"
            except Exception as error:
                return f"failed ({type(error).__name__})"
            return "ok"

        return dict(zip(calls, await asyncio.gather(*map(state, calls.values())), strict=True))

    def check_scored(self, sequences: Sequence[Tokens], first: int = 0) -> None:
        """Check that these sequences can be scored from index `first` on.

        Raises:
            PromptTooLong: a sequence is empty, ends before `first` or exceeds the engines' context.
            PromptUnreadable: a sequence has unknown token ids.
        """
        for tokens in sequences:
            if not 0 < len(tokens) <= self.context:
                raise PromptTooLong(
                    f"a sequence has {len(tokens)} tokens; this server scores 1 to {self.context}: change its length"
                )
            if first >= len(tokens):
                raise PromptTooLong(f"from_token is {first}, and a sequence has {len(tokens)} tokens: lower it")
            self._check_ids(tokens)

    async def score(self, sequences: Sequence[Tokens], every_token: bool, first: int = 0) -> list[list[float]]:
        """Values of sequences at their last token, or after each token from index `first` on.

        Raises:
            PromptTooLong, PromptUnreadable: as `check_scored`.
            EngineDied: the engine is unavailable.
        """
        self.check_scored(sequences, first)
        if not every_token:
            scores = await gather_or_cancel(_independent(self.value.score, tokens) for tokens in sequences)
            return [[score.value] for score in scores]
        scores_by_token = await gather_or_cancel(_independent(self.value.score_each, tokens) for tokens in sequences)
        return [[score.value for score in scores[first:]] for scores in scores_by_token]

    async def _grow(self, models: Models, spec: SearchSpec, listen: Listener | None, **others: Any) -> Tree:
        if spec.method == "sample":
            return await sample(*models, count=spec.budget, sampling=spec.sampling, listen=listen, **others)
        sampling = replace(spec.sampling, stop_token_ids=(*spec.sampling.stop_token_ids, *self.block_ends))
        cache_block = await self.cache_block() if spec.beam.align and self.cache_block else 1
        return await beam(*models, beam=spec.beam, sampling=sampling, listen=listen, cache_block=cache_block, **others)

    def _logprobs(
        self, policy: LogprobPolicy, tree: Tree, leaves: Sequence[Leaf], raw: bool
    ) -> tuple[tuple[TokenLogprob, ...], ...]:
        mark = self.decode(())
        return tuple(answer_logprobs(policy, tree, leaf, self.pieces, mark, raw) for leaf in leaves)

    def _early_stop(self, spec: SearchSpec, same: Equivalent) -> EarlyStop | None:
        def answer(tree: Tree, leaf: Node) -> str | None:
            return leaf_of(tree, leaf.id, spec, self.decode).answer

        return EarlyStop(spec.confidence, answer, same, spec.select) if spec.confidence else None


async def _independent(call: Callable[[Tokens], Awaitable[T]], tokens: Tokens) -> T:
    """A call that any replica may process, because it shares no prefix, and that is not repeated: the client can do that."""
    SEARCH_CONTEXT.set(SearchContext(secrets.token_hex(8), retryable=False))
    return await call(tokens)


async def _in_time(
    grow: Callable[[Listener | None], Awaitable[Tree]], limit_s: float | None, prompt: Tokens, listen: Listener | None
) -> tuple[Tree, bool]:
    """The tree, and whether the deadline ended it. Then it has the nodes so far, and open prefixes are cut-off answers."""
    if limit_s is None:
        return await grow(listen), False
    grown = Tree(prompt)

    def copy(node: Node) -> None:
        grown.copy(node)
        if listen:
            listen(node)

    try:
        return await asyncio.wait_for(grow(copy), limit_s), False
    except TimeoutError:
        return grown.cut(), True


def seed_of(spec: SearchSpec) -> int:
    """The seed of the search, drawn if it has none."""
    return secrets.randbits(31) if spec.seed is None else spec.seed
