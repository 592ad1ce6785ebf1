"""The search tree of one problem: an append-only list of nodes, each a block of tokens.

Explorers add nodes. A tree gives paths, leaves and token counts, and converts to plain JSON values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Usage

State = Literal["kept", "pruned", "finished", "length"]
"""`kept`: a prefix that was extended or, in MCTS, may be. `pruned`: a block that the search dropped. `finished`: an answer that
ended with an end-of-sequence token. `length`: an answer that was cut off at the token limit."""

ROOT = 0


@dataclass(frozen=True)
class Node:
    """One block. Its place (group, round, index) does not depend on the order of arrival; the root's is (-1, -1, 0).

    Attributes:
        id: position in `Tree.nodes`.
        parent: id of the parent node; None for the root.
        group: number of its beam group or sample.
        round: number of blocks between the root and this one.
        index: number within its group and round.
        tokens: new tokens of this block only.
        value: P(correct) at its last token; None if it was not scored or its score is NaN.
        probs: class probabilities (incorrect, correct, incomplete); empty for a value model without classes.
        state: see `State`.
        prefilled: tokens of its prefix that the policy forwarded; the others were cached.
        scored: tokens that the value model forwarded to score it, its own included.
        logprob: mean log-probability of its tokens; None if the engine did not compute it.
    """

    id: int
    parent: int | None
    group: int
    round: int
    index: int
    tokens: Tokens
    value: float | None
    probs: tuple[float, ...]
    state: State
    prefilled: int
    scored: int
    logprob: float | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        return self.group, self.round, self.index


Listener = Callable[[Node], None]


class Tree:
    """An append-only list of nodes below one prompt.

    Args:
        prompt: tokens that each answer continues; they are not part of the root's tokens.
        listener: called with each node after it is added.
    """

    def __init__(self, prompt: Tokens, listener: Listener | None = None) -> None:
        self.prompt = tuple(prompt)
        self.nodes: list[Node] = [Node(ROOT, None, -1, -1, 0, (), None, (), "kept", 0, 0)]
        self._starts = [0]
        self._listener = listener

    @property
    def root(self) -> Node:
        return self.nodes[ROOT]

    def add(
        self,
        parent: int,
        *,
        group: int,
        round: int,
        index: int,
        tokens: Tokens,
        score: Score | None,
        state: State,
        prefilled: int = 0,
        logprob: float | None = None,
    ) -> Node:
        """Append a block below `parent` and call the listener with it.

        Raises:
            ValueError: `parent` is not the id of a node.
        """
        if not 0 <= parent < len(self.nodes):
            raise ValueError(f"parent {parent} is not a node; ids are 0 to {len(self.nodes) - 1}: add the parent first")
        value = None if score is None or math.isnan(score.value) else score.value
        probs = () if value is None or score is None else tuple(score.probs)
        scored = score.scored if score else 0
        node = Node(
            len(self.nodes), parent, group, round, index, tuple(tokens), value, probs, state, prefilled, scored, logprob
        )
        self.nodes.append(node)
        self._starts.append(self.end(parent))
        if self._listener:
            self._listener(node)
        return node

    def set_score(self, id: int, score: Score) -> None:
        """Store the score of a node that was added without one. The listener is not called again."""
        missing = math.isnan(score.value)
        value, probs = (None, ()) if missing else (score.value, tuple(score.probs))
        self.nodes[id] = replace(self.nodes[id], value=value, probs=probs, scored=score.scored)

    def children(self) -> list[list[Node]]:
        """The children of each node, by its id, in the order of their indices."""
        found: list[list[Node]] = [[] for _ in self.nodes]
        for node in self.nodes[1:]:
            found[node.parent or ROOT].append(node)
        return [sorted(nodes, key=lambda node: node.index) for nodes in found]

    def copy(self, node: Node) -> None:
        """Append a copy of a node of another tree. Nodes must be copied in the order of their ids."""
        score = Score(math.nan if node.value is None else node.value, node.probs, node.scored)
        place = {name: getattr(node, name) for name in ("group", "round", "index", "state", "prefilled", "logprob")}
        self.add(node.parent or ROOT, tokens=node.tokens, score=score, **place)

    def cut(self) -> Tree:
        """The tree of an interrupted search: each kept prefix without children becomes a leaf of state `length`."""
        parents = {node.parent for node in self.nodes}
        ended = Tree(self.prompt)
        for node in self.nodes[1:]:
            interrupted = node.state == "kept" and node.id not in parents
            ended.copy(replace(node, state="length") if interrupted else node)
        return ended

    def prune(self, first_group: int) -> None:
        """Set the state of all nodes of the groups from `first_group` on to `pruned`. The listener is not called again."""
        for id, node in enumerate(self.nodes):
            if node.group >= first_group:
                self.nodes[id] = replace(node, state="pruned")

    def start(self, id: int) -> int:
        """Number of response tokens before this node."""
        return self._starts[id]

    def end(self, id: int) -> int:
        """Number of response tokens up to the end of this node: the length of its path."""
        return self._starts[id] + len(self.nodes[id].tokens)

    def ancestors(self, id: int) -> list[int]:
        """Ids from this node up to the root, both included."""
        ids, parent = [id], self.nodes[id].parent
        while parent is not None:
            ids.append(parent)
            parent = self.nodes[parent].parent
        return ids

    def path(self, id: int) -> Tokens:
        """Response tokens from the root to the end of this node, without the prompt."""
        return tuple(chain.from_iterable(self.nodes[at].tokens for at in reversed(self.ancestors(id))))

    def mean_logprob(self, id: int) -> float | None:
        """Mean log-probability of the tokens from the root to the end of this node; None if a block has none."""
        total, node = 0.0, self.nodes[id]
        while node.parent is not None:
            if node.logprob is None:
                return None
            total += node.logprob * len(node.tokens)
            node = self.nodes[node.parent]
        return total / max(self.end(id), 1)

    def leaves(self) -> list[Node]:
        """Answers that ended, finished or cut off, sorted by (group, round, index)."""
        return sorted(
            (node for node in self.nodes if node.state in ("finished", "length")), key=lambda node: node.place
        )

    def usage(self, groups: Collection[int] | None = None) -> Usage:
        """Tokens that the engines forwarded for this tree, from their own counts. Pruned blocks are included.

        Args:
            groups: count these groups only; None counts all.
        """
        nodes = [node for node in self.nodes[1:] if groups is None or node.group in groups]
        before = sum(len(self.prompt) + self.start(node.id) for node in nodes)
        read = sum(len(self.prompt) + self.end(node.id) for node in nodes if node.scored)
        usage = Usage(
            generated=sum(len(node.tokens) for node in nodes),
            prefilled=sum(node.prefilled for node in nodes),
            scored=sum(node.scored for node in nodes),
        )
        usage.cached = before - usage.prefilled + max(read - usage.scored, 0)
        return usage

    def canonical(self) -> Tree:
        """The same tree with its ids in the order of (round, group, index), which does not depend on the order of arrival."""
        order = sorted(self.nodes[1:], key=lambda node: (node.round, node.group, node.index))
        ids = {ROOT: ROOT} | {node.id: new for new, node in enumerate(order, 1)}
        return Tree._of(self.prompt, [{**asdict(node), "parent": ids[node.parent or ROOT]} for node in order])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: `{"prompt": [...], "nodes": [...]}`, without the root."""
        nodes = [{**asdict(node), "tokens": list(node.tokens), "probs": list(node.probs)} for node in self.nodes[1:]]
        return {"prompt": list(self.prompt), "nodes": nodes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tree:
        """The inverse of `to_json`.

        Raises:
            KeyError: a field is missing.
            ValueError: a node comes before its parent.
        """
        return cls._of(tuple(data["prompt"]), data["nodes"])

    @classmethod
    def _of(cls, prompt: Tokens, nodes: Iterable[dict[str, Any]]) -> Tree:
        tree = cls(prompt)
        for node in nodes:
            value = math.nan if node["value"] is None else node["value"]
            score = Score(value, tuple(node["probs"]), node["scored"])
            place = {key: node[key] for key in ("group", "round", "index", "state", "prefilled")}
            place["logprob"] = node.get("logprob")  # trees of earlier versions have none
            tree.add(node["parent"], tokens=tuple(node["tokens"]), score=score, **place)
        return tree
