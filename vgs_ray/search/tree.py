"""One problem grows one tree: blocks of tokens as nodes, appended once and never changed.

In: what explorers add. Out: paths, leaves, token counts and a plain dict from which everything can be recomputed
without an engine. Listeners hear of each node as it is added. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score, Usage

State = Literal["kept", "pruned", "finished", "length"]
"""`kept`: a prefix that was, or in a tree search may be, extended. `pruned`: a candidate that lost. `finished`, `length`: an
answer that survived to its end-of-sequence token, or to the token limit."""

ROOT = 0


@dataclass(frozen=True)
class Node:
    """One block. (group, round, index) is its place whatever the order of arrival; the root is (-1, -1, 0).

    Attributes:
        id: position in `Tree.nodes`.
        parent: id of the node whose prefix it extends; None for the root.
        group: beam, or sample, that it belongs to.
        round: blocks between the root and this one.
        index: candidate number within its group and round.
        tokens: new tokens of this block only.
        value: P(correct) at its last token; None when it was not scored, or not to a number.
        probs: class probabilities, where the value model has classes.
        state: what became of it.
        prefilled: tokens before it that the policy forwarded to write it; 0 where they were cached.
        scored: tokens that the value model forwarded to score it, its own among them.
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

    @property
    def place(self) -> tuple[int, int, int]:
        return self.group, self.round, self.index


Listener = Callable[[Node], None]


class Tree:
    """An append-only list of nodes below one prompt.

    Args:
        prompt: tokens that every answer continues; the root holds none of them.
        listeners: called with each node right after it is added, in the order of addition.
    """

    def __init__(self, prompt: Tokens, listeners: Iterable[Listener] = ()) -> None:
        self.prompt = tuple(prompt)
        self.nodes: list[Node] = [Node(ROOT, None, -1, -1, 0, (), None, (), "kept", 0, 0)]
        self._starts = [0]
        self._listeners = list(listeners)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with each node that is added from now on."""
        self._listeners.append(listener)

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
    ) -> Node:
        """Append a block below `parent` and tell the listeners.

        Raises:
            ValueError: there is no such parent.
        """
        if not 0 <= parent < len(self.nodes):
            raise ValueError(f"parent {parent} is not a node: add it first (ids are 0 to {len(self.nodes) - 1})")
        value = None if score is None or math.isnan(score.value) else score.value
        probs = () if value is None or score is None else tuple(score.probs)
        scored = score.scored if score else 0
        node = Node(len(self.nodes), parent, group, round, index, tuple(tokens), value, probs, state, prefilled, scored)
        self.nodes.append(node)
        self._starts.append(self.end(parent))
        for listener in self._listeners:
            listener(node)
        return node

    def copy(self, node: Node) -> None:
        """Append a node of a tree that grows elsewhere; nodes must come in their order."""
        score = Score(math.nan if node.value is None else node.value, node.probs, node.scored)
        place = {name: getattr(node, name) for name in ("group", "round", "index", "state", "prefilled")}
        self.add(node.parent or ROOT, tokens=node.tokens, score=score, **place)

    def cut(self) -> Tree:
        """The tree as if every prefix that nothing continues had met the token limit: what an interrupted search has."""
        continued = {node.parent for node in self.nodes}
        ended = Tree(self.prompt)
        for node in self.nodes[1:]:
            open_end = node.state == "kept" and node.id not in continued
            ended.copy(replace(node, state="length") if open_end else node)
        return ended

    def start(self, id: int) -> int:
        """Response tokens before this node."""
        return self._starts[id]

    def end(self, id: int) -> int:
        """Response tokens up to the end of this node: the length of its path."""
        return self._starts[id] + len(self.nodes[id].tokens)

    def path(self, id: int) -> Tokens:
        """Response tokens from the root to the end of this node; the prompt is not part of it."""
        blocks: list[Tokens] = []
        at: int | None = id
        while at is not None:
            blocks.append(self.nodes[at].tokens)
            at = self.nodes[at].parent
        return tuple(token for block in reversed(blocks) for token in block)

    def leaves(self) -> list[Node]:
        """Answers that survived, finished or at the token limit, by (group, round, index): not by arrival."""
        return sorted((node for node in self.nodes if node.state in ("finished", "length")), key=lambda n: n.place)

    def usage(self, groups: Collection[int] | None = None) -> Usage:
        """Tokens that the engines forwarded for this tree, as they counted them.

        Each block is generated once; what of a prefix was not in an engine's cache was forwarded again. Pruned blocks count.

        Args:
            groups: count only these; None counts all.
        """
        nodes = [node for node in self.nodes[1:] if groups is None or node.group in groups]
        before = sum(len(self.prompt) + self.start(node.id) for node in nodes)
        read = sum(len(self.prompt) + self.end(node.id) for node in nodes if node.scored)
        used = Usage(
            generated=sum(len(node.tokens) for node in nodes),
            prefilled=sum(node.prefilled for node in nodes),
            scored=sum(node.scored for node in nodes),
        )
        used.cached = before - used.prefilled + max(read - used.scored, 0)
        return used

    def canonical(self) -> Tree:
        """The same tree with ids in the order of (round, group, index), equal for every order of arrival."""
        order = sorted(self.nodes[1:], key=lambda n: (n.round, n.group, n.index))
        ids = {ROOT: ROOT} | {node.id: new for new, node in enumerate(order, 1)}
        return Tree._of(self.prompt, [{**asdict(n), "parent": ids[n.parent or ROOT]} for n in order])

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings: `{"prompt": [...], "nodes": [...]}`; the root is left out."""
        nodes = [{**asdict(n), "tokens": list(n.tokens), "probs": list(n.probs)} for n in self.nodes[1:]]
        return {"prompt": list(self.prompt), "nodes": nodes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tree:
        """What `to_json` made.

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
            tree.add(node["parent"], tokens=tuple(node["tokens"]), score=score, **place)
        return tree
