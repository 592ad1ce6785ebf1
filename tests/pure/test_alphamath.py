"""AlphaMath's tree search against a second implementation with node objects, and Q-values of stored trees."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Mcts, Sampling, alphamath
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.labels.tree_values import tree_values
from vgs_ray.search.alphamath import Reward
from vgs_ray.search.mcts import highest_q_leaf, mcts, visits
from vgs_ray.search.tree import ROOT, Tree

WORLD, PROMPT, SEED = World(steps=9, slip=0.3), (3,), 5
SHAPES = st.builds(
    alphamath,
    simulations=st.integers(1, 30),
    width=st.integers(1, 4),
    depth=st.integers(1, 5),
    block=st.integers(1, 6),
    c_puct=st.floats(0, 3),
    prior=st.sampled_from(["likelihood", "uniform"]),
)
WAVES = st.builds(lambda shape, parallel: replace(shape, parallel=parallel), SHAPES, st.integers(1, 6))
LIMITS = st.sampled_from([5, 40]).map(lambda limit: Sampling(max_tokens=limit, stop_token_ids=(1,)))
ENGINES = st.sampled_from(["one pass", "two", "no value"])


@dataclass
class Policy(ScriptedPolicy):
    """With log-probabilities that differ, and with a value head or without."""

    head: ScriptedValue | None = None

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        done = await super().extend(prefix, sampling, seed)
        score = await self.head.score(prefix + done.tokens) if self.head else None
        return done._replace(mean_logprob=-random.Random(seed).random(), score=score)


@dataclass
class CountedValue(ScriptedValue):
    calls: list[Tokens] = field(default_factory=list)

    async def score(self, tokens: Tokens) -> Score:
        self.calls.append(tokens)
        return await super().score(tokens)


@dataclass
class Search:
    """One search with one of the three kinds of engines, with rewards or without."""

    shape: Mcts
    sampling: Sampling
    engines: str
    rewarded: bool
    latency: int = 0
    value: CountedValue = field(default_factory=lambda: CountedValue(WORLD))

    def policy(self) -> Policy:
        head = ScriptedValue(WORLD) if self.engines == "one pass" else None
        return Policy(WORLD, latency=self.latency, seed=self.latency, head=head)

    async def reward(self, response: Tokens) -> float | None:
        return [1.0, -1.0, None][sum(response) % 3]

    def grow(self) -> Tree:
        value, reward = (self.value if self.engines == "two" else None), self.reward if self.rewarded else None
        call = mcts(self.policy(), value, PROMPT, shape=self.shape, sampling=self.sampling, seed=SEED, reward=reward)
        return asyncio.run(call)

    def rewards(self, tree: Tree) -> dict[int, float | None] | None:
        ends = [leaf.id for leaf in tree.leaves() if leaf.state == "finished"]
        return {id: asyncio.run(self.reward(tree.path(id))) for id in ends} if self.rewarded else None


SEARCHES = st.builds(Search, SHAPES, LIMITS, ENGINES, st.booleans())
WAVE_SEARCHES = st.builds(Search, WAVES, LIMITS, ENGINES, st.booleans())


@dataclass
class Peer:
    """A node of the second implementation."""

    parent: Peer | None
    response: Tokens
    place: tuple[int, int]
    state: str = "kept"
    prior: float = 1.0
    n: int = 0
    values: list[float] = field(default_factory=list)
    children: list[Peer] = field(default_factory=list)

    def update(self, value: float | None) -> None:
        self.n += 1
        self.values += [] if value is None else [value]
        if self.parent:
            self.parent.update(value)

    def over(self) -> bool:
        return self.state != "kept" or (bool(self.children) and all(child.over() for child in self.children))

    def q(self) -> float:
        return sum(self.values) / len(self.values) if self.values else 0.0

    def select(self, c_puct: float) -> Peer:
        def puct(child: Peer) -> float:
            return child.q() + c_puct * child.prior * math.sqrt(self.n) / (1 + child.n)

        return max((child for child in self.children if not child.over()), key=puct)


def peer_search(search: Search) -> list[Peer]:
    """The nodes in the order in which they are made; one simulation after the other."""
    shape, policy = search.shape, search.policy()

    def value_of(response: Tokens) -> float | None:
        if search.engines == "no value" or not response:  # the prompt is not scored
            return None
        return 2 * asyncio.run(ScriptedValue(WORLD).score(PROMPT + response)).value - 1

    nodes = [Peer(None, (), (-1, 0))]
    for _ in range(shape.simulations):
        if nodes[0].over():
            break
        at = nodes[0]
        while at.children:
            at = at.select(shape.c_puct)
        depth, first = at.place[0] + 1, at.place[1] * shape.width
        for place in range(first, first + shape.width):
            left = min(shape.block, search.sampling.max_tokens - len(at.response))
            seed = stable_seed(SEED, depth, place)
            done = asyncio.run(policy.extend(PROMPT + at.response, replace(search.sampling, max_tokens=left), seed))
            prior = math.exp(done.mean_logprob) if shape.prior == "likelihood" else 1.0
            child = Peer(at, at.response + done.tokens, (depth, place), prior=prior)
            too_long = len(child.response) >= search.sampling.max_tokens or depth + 1 >= shape.depth
            child.state = "finished" if done.finished else "length" if too_long else "kept"
            nodes.append(child)
            if any(other.response == child.response for other in at.children):
                child.state = "pruned"
                continue
            at.children.append(child)
            reward: float | None = -1.0
            if child.state == "finished":
                reward = asyncio.run(search.reward(child.response)) if search.rewarded else value_of(child.response)
            if child.state != "kept" and (reward is not None or not search.rewarded):
                child.update(reward)
        at.update(value_of(at.response))
        for child in at.children if shape.prior == "uniform" else []:
            child.prior = 1 / len(at.children)
    return nodes


@given(search=SEARCHES)
@settings(max_examples=150, deadline=None)
def test_trees_and_statistics_equal_those_of_the_second_implementation(search: Search) -> None:
    tree, peers = search.grow(), peer_search(search)
    if not search.rewarded and all(peer.state in ("kept", "pruned") for peer in peers):
        assert tree.nodes[-1].index == -1  # the path that is continued after the search
        tree.nodes.pop()
    assert [(tree.path(node.id), node.state) for node in tree.nodes] == [(peer.response, peer.state) for peer in peers]
    seen = visits(tree, search.shape, search.rewards(tree))
    assert [seen.count.get(node.id, 0) for node in tree.nodes] == [peer.n for peer in peers]
    assert [seen.mean(node.id) for node in tree.nodes] == pytest.approx([peer.q() for peer in peers], abs=1e-9)


@given(search=WAVE_SEARCHES, latency=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_stored_trees_give_the_same_visits_in_whatever_order_engines_respond(search: Search, latency: int) -> None:
    tree = search.grow()
    assert replace(search, latency=latency).grow().to_json() == tree.to_json()
    whole, rewards = visits(tree, search.shape, search.rewards(tree)), search.rewards(tree.canonical())
    again = visits(Tree.from_json(json.loads(json.dumps(tree.canonical().to_json()))), search.shape, rewards)
    by_place = {tree.nodes[id].place: (whole.mean(id), count) for id, count in whole.count.items()}
    canonical = tree.canonical()
    assert {canonical.nodes[id].place: (again.mean(id), n) for id, n in again.count.items()} == by_place


@given(search=WAVE_SEARCHES)
@settings(max_examples=80, deadline=None)
def test_one_visit_a_simulation_and_one_an_answer(search: Search) -> None:
    tree = search.grow()
    rewards = search.rewards(tree)
    seen, shape = visits(tree, search.shape, rewards), search.shape
    searched = [node for node in tree.nodes if node.index >= 0]
    unknown = {id for id, reward in (rewards or {}).items() if reward is None}
    ended = [node for node in searched if node.state in ("finished", "length") and node.id not in unknown]
    assert seen.count[ROOT] == len(seen.children) + len(ended)
    assert all(seen.count[node.id] == 1 for node in ended)
    assert all(-1 <= seen.mean(id) <= 1 for id in seen.count)
    assert all(tree.nodes[id].state == "kept" for id in seen.children)
    waiting = [node for node in searched if node.state == "kept" and node.id not in seen.children]
    assert len(seen.children) == shape.simulations or not waiting
    scored = [node.id for node in tree.nodes[1:] if node.index >= 0 and node.value is not None]
    if search.engines == "two":  # only what is backed up is scored, once
        expected = [id for id in seen.children if id != ROOT]
        expected += [] if search.rewarded else [node.id for node in ended if node.state == "finished"]
        assert sorted(scored) == sorted(expected)
        assert len(search.value.calls) == len(scored) + sum(node.index < 0 for node in tree.nodes)


@given(search=WAVE_SEARCHES)
@settings(max_examples=80, deadline=None)
def test_q_of_a_finished_tree_is_a_fold(search: Search) -> None:
    search = replace(search, rewarded=True)
    tree = search.grow()
    rewards = search.rewards(tree) or {}
    seen, names = visits(tree, search.shape, rewards), {1.0: "correct", -1.0: "incorrect", None: "unknown"}
    ends = {"length": "incomplete", "kept": None, "pruned": None}
    nodes = tree.nodes[1:]
    outcomes = [names[rewards[node.id]] if node.state == "finished" else ends[node.state] for node in nodes]
    folded = tree_values([node.parent or 0 for node in nodes], [node.value for node in nodes], outcomes)
    assert folded.visits == [seen.count.get(node.id, 0) for node in tree.nodes]
    assert [q or 0.0 for q in folded.q] == pytest.approx([seen.mean(node.id) for node in tree.nodes], abs=1e-9)
    assert [q is None for q in folded.q] == [not seen.valued.get(node.id) for node in tree.nodes]


@given(search=WAVE_SEARCHES)
@settings(max_examples=60, deadline=None)
def test_the_walk_takes_the_highest_q_that_leads_to_an_answer(search: Search) -> None:
    search = replace(search, rewarded=False)
    tree = search.grow()
    seen, leaf = visits(tree, search.shape), highest_q_leaf(tree, search.shape)
    wanted = "finished" if any(each.state == "finished" for each in tree.leaves()) else "length"

    def answers(id: int) -> Iterator[int]:
        if tree.nodes[id].state == wanted:
            yield id
        for child in tree.nodes:
            if child.parent == id:
                yield from answers(child.id)

    assert leaf is not None
    assert leaf.state == wanted
    for id in tree.ancestors(leaf.id)[:-1]:
        siblings = [node.id for node in tree.nodes if node.parent == tree.nodes[id].parent and any(answers(node.id))]
        assert seen.mean(id) == max(map(seen.mean, siblings))


def test_a_tree_without_nodes_has_no_answer() -> None:
    assert highest_q_leaf(Tree(PROMPT), alphamath()) is None


def test_a_policy_without_log_probabilities_is_refused_by_the_likelihood() -> None:
    @dataclass
    class Silent(ScriptedPolicy):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            return (await super().extend(prefix, sampling, seed))._replace(mean_logprob=math.nan)

    grow = mcts(Silent(WORLD), None, PROMPT, shape=alphamath(block=2), sampling=Sampling(), seed=0)
    with pytest.raises(ValueError, match=r"node 1 has no log-probability.*'uniform'"):
        asyncio.run(grow)


def test_rewards_need_the_back_up_of_prefixes() -> None:
    reward: Reward = Search(Mcts(), Sampling(), "two", True).reward
    grow = mcts(ScriptedPolicy(WORLD), None, PROMPT, shape=Mcts(), sampling=Sampling(), seed=0, reward=reward)
    with pytest.raises(ValueError, match="back_up='prefix'"):
        asyncio.run(grow)


def test_a_fold_refuses_a_child_before_its_parent() -> None:
    with pytest.raises(ValueError, match="node 1 has the parent 2"):
        tree_values([2, 0], [None, None], [None, "correct"])
