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
from functools import partial
from typing import TypeVar

from vgs_ray.answers.judge import Judge
from vgs_ray.config import Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH, Policy, SearchCalls, UnknownToken, Value, check_tokens
from vgs_ray.grade import extract_answer
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search import select
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.flops import ModelSizes, tree_flops
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.tree import Listener, Node, Tree
from vgs_ray.serve.search_result import Leaf, SearchResult, Vote, ranked, standing
from vgs_ray.serve.search_spec import SearchSpec
from vgs_ray.serve.stop_strings import BROKEN, StopStringPolicy, text_before_stop

T = TypeVar("T")
VOTE_LIMIT_S = 10.0
"""Time for comparing answers of one search; pairs that are left after it count as different."""
PROBE_LIMIT_S = 10.0
PROBE = "1+1"
MOST_OF_CHARACTER = 8
"""Tokens that one character may have; what is longer is no character."""


class PromptTooLong(ValueError):
    """The prompt leaves no room for an answer in the engines' context."""


class PromptUnreadable(ValueError):
    """The prompt or a sequence has token ids that the models do not have."""


class TooLate(RuntimeError):
    """The deadline came before anything was there."""


@dataclass(frozen=True)
class Searcher:
    """What all searches share.

    Attributes:
        policy, value: the engines.
        encode: a problem's text to the prompt's tokens.
        tokenize: any text to its tokens, without template and instruction.
        decode: response tokens to text.
        judge: says whether two answers are equal, within its limits of time and memory.
        context: tokens of the longest sequence that both engines take.
        sizes: of both models, to count FLOPs; None where they are unknown.
        vocabulary: token ids that tokenizer and models have, from 0 up; None checks none.
    """

    policy: Policy
    value: Value
    encode: Callable[[str], Tokens]
    tokenize: Callable[[str], Tokens]
    decode: Callable[[Tokens], str]
    judge: Judge
    context: int
    sizes: ModelSizes | None = None
    vocabulary: int | None = None

    async def solve(self, spec: SearchSpec, listen: Listener | None = None, waited_s: float = 0.0) -> SearchResult:
        """Search, then vote.

        Args:
            spec: the problem and how to search it.
            listen: called with each node of the tree as it is added.
            waited_s: seconds of the deadline that are over.

        Raises:
            PromptTooLong: the prompt fills the engines' context.
            PromptUnreadable: it has token ids that the models do not have.
            TooLate: the deadline came before the first block.
            EngineDied: an engine is gone.
        """
        started = time.perf_counter()
        SEARCH.set(SearchCalls(secrets.token_hex(8)))
        seed, prompt = seed_of(spec), self.prompt(spec)
        # An answer ends at the context's end, not in an engine's refusal of a prefix that fills it.
        room = self.context - len(prompt)
        sampling = replace(spec.sampling, max_tokens=min(spec.sampling.max_tokens, room))
        policy = (
            StopStringPolicy(self.policy, len(prompt), spec.stop, self.decode, self.pieces)
            if spec.stop
            else self.policy
        )
        grow = partial(self._grow, policy, replace(spec, sampling=sampling), prompt, stable_seed(seed))
        left_s = None if spec.deadline_s is None else max(spec.deadline_s - waited_s, 0.0)
        tree, late = await _in_time(grow, left_s, prompt, listen)
        # In a thread: texts of many long answers, and sympy, would hold up every other search.
        leaves, votes = await asyncio.to_thread(self._vote, tree, spec)
        if not leaves:
            raise TooLate(f"not even one block was there after {spec.deadline_s} s; raise search.deadline_s")
        used = tree.usage()
        if isinstance(policy, StopStringPolicy):
            used.generated += policy.wasted
        flops = tree_flops(tree, *self.sizes) if self.sizes else None
        seconds = time.perf_counter() - started
        chosen = ranked(leaves, votes)[: spec.n]
        return SearchResult(leaves, votes, chosen, len(prompt), used, seed, seconds, late, flops, spec.warnings)

    def prompt(self, spec: SearchSpec) -> Tokens:
        """The problem as the engines read it.

        Raises:
            PromptTooLong: it is empty or fills the engines' context.
            PromptUnreadable: it has token ids that the models do not have.
        """
        if isinstance(spec.problem, str):
            tokens = self.tokenize(spec.problem) if spec.raw else self.encode(spec.problem)
        else:
            tokens = spec.problem
        if not 0 < len(tokens) < self.context:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens; this server takes at least 1 and at most {self.context - 1}: "
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
        """The text of each token; joined they are the text of all.

        A character of several tokens belongs to the last of them. Each token is decoded behind a few before it, because
        tokenizers write the first one of a text differently; the time is linear in the tokens.
        """
        found: list[str] = []
        start = end = 0  # of the last piece
        for stop in range(1, len(tokens) + 1):
            before, text = self.decode(tokens[start:end]), self.decode(tokens[start:stop])
            whole = not text.endswith(BROKEN) or stop == len(tokens) or stop - end >= MOST_OF_CHARACTER
            found.append(text[len(before) :] if whole else "")
            if whole:
                start, end = end, stop
        return found

    async def probe(self) -> dict[str, str]:
        """Ask each engine for one token: its name, and `ok` or what is wrong."""
        prompt = self.encode(PROBE)
        one = Sampling(temperature=0.0, max_tokens=1)
        SEARCH.set(SearchCalls(""))  # its text harms nobody, so that it may be asked of any engine
        calls = {"policy": self.policy.extend(prompt, one, 0), "value": self.value.score(prompt)}

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
        """Whether these sequences can be scored from their token `first` on.

        Raises:
            PromptTooLong: a sequence is empty, ends before `first` or does not fit the engines' context.
            PromptUnreadable: it has token ids that the models do not have.
        """
        for tokens in sequences:
            if not 0 < len(tokens) <= self.context:
                raise PromptTooLong(
                    f"a sequence has {len(tokens)} tokens; this server scores 1 to {self.context}: shorten or fill it"
                )
            if first >= len(tokens):
                raise PromptTooLong(f"from_token is {first}, and a sequence has {len(tokens)} tokens: lower it")
            self._check_ids(tokens)

    async def score(self, sequences: Sequence[Tokens], every_token: bool, first: int = 0) -> list[list[float]]:
        """Values of sequences at their last token, or after each of their tokens from index `first` on.

        Raises:
            PromptTooLong, PromptUnreadable: as `check_scored`.
            EngineDied: the engine is gone.
        """
        self.check_scored(sequences, first)
        if not every_token:
            return [
                [read.value] for read in await gather_or_cancel(_apart(self.value.score, each) for each in sequences)
            ]
        found = await gather_or_cancel(_apart(self.value.score_each, each) for each in sequences)
        return [[read.value for read in reads[first:]] for reads in found]

    async def _grow(self, policy: Policy, spec: SearchSpec, prompt: Tokens, seed: int, listen: Listener | None) -> Tree:
        models = policy, self.value, prompt
        if spec.method == "sample":
            return await sample(*models, count=spec.budget, sampling=spec.sampling, seed=seed, listen=listen)
        return await beam(*models, beam=spec.beam, sampling=spec.sampling, seed=seed, listen=listen)

    def _vote(self, tree: Tree, spec: SearchSpec) -> tuple[tuple[Leaf, ...], tuple[Vote, ...]]:
        leaves = tuple(self._leaf(tree, node.id, spec) for node in tree.leaves())
        deadline = time.monotonic() + VOTE_LIMIT_S

        def same(first: str, other: str) -> bool:
            if time.monotonic() > deadline:
                return False
            return self.judge.equivalent_pairs([(first, other)])[first, other] is True

        classes = select.classes([leaf.answer for leaf in leaves], same)
        weighed = select.weigh(spec.select, classes, [leaf.value for leaf in leaves])
        weighed.sort(key=lambda found: (-found.weight, -found.max_value))  # stable, so the first of equals stays first
        return leaves, tuple(
            Vote(max(found.members, key=lambda at: standing(leaves[at])), found.members, found.weight)
            for found in weighed
        )

    def _leaf(self, tree: Tree, id: int, spec: SearchSpec) -> Leaf:
        node, mark = tree.nodes[id], self.decode(())  # that the thought is over, where none is open before the response
        text = text_before_stop(self.decode(tree.path(id)), spec.stop, len(mark))
        finished = node.state == "finished"
        # As in evaluation: what was cut off has given no answer.
        answer = extract_answer(text) if finished else None
        text = text.removeprefix(mark if spec.raw and mark == END_OF_THOUGHT else "")
        return Leaf(id, text, answer, node.value, node.group, tree.end(id), "stop" if finished else "length")


async def _apart(call: Callable[[Tokens], Awaitable[T]], tokens: Tokens) -> T:
    """A call that shares no prefix with others, so that it may go to any engine, and is not repeated: its client can."""
    SEARCH.set(SearchCalls(secrets.token_hex(8), repeated=False))
    return await call(tokens)


async def _in_time(
    grow: Callable[[Listener | None], Awaitable[Tree]], limit_s: float | None, prompt: Tokens, listen: Listener | None
) -> tuple[Tree, bool]:
    """The tree, and whether it is what there was at the deadline: then its open prefixes are answers that were cut off."""
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
    """The spec's seed; one is drawn where it has none."""
    return secrets.randbits(31) if spec.seed is None else spec.seed
