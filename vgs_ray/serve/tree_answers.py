"""The answers of a search tree, and the vote on them.

In: a `Tree` whose search has ended, or is running. Out: a `Leaf` for each answer, and a `Vote` for each class of equal answers.
"""

from __future__ import annotations

from collections.abc import Callable

from vgs_ray.data.tokens import Tokens
from vgs_ray.grade import extract_answer
from vgs_ray.prompts import END_OF_THOUGHT
from vgs_ray.search import select
from vgs_ray.search.select import Equivalent
from vgs_ray.search.tree import Tree
from vgs_ray.serve.search_result import Leaf, Vote, rank_key
from vgs_ray.serve.search_spec import SearchSpec
from vgs_ray.serve.stop_strings import text_before_stop

Decode = Callable[[Tokens], str]


def vote(tree: Tree, spec: SearchSpec, decode: Decode, same: Equivalent) -> tuple[tuple[Leaf, ...], tuple[Vote, ...]]:
    """All answers, and the classes of equal ones, the winner first."""
    leaves = tuple(leaf_of(tree, node.id, spec, decode) for node in tree.leaves())
    classes = select.classes([leaf.answer for leaf in leaves], same)
    weighed = select.weigh(spec.select, classes, [leaf.value for leaf in leaves])
    weighed.sort(key=lambda group: (-group.weight, -group.max_value))  # stable: equal ones keep their order
    return leaves, tuple(
        Vote(max(group.members, key=lambda index: rank_key(leaves[index])), group.members, group.weight)
        for group in weighed
    )


def leaf_of(tree: Tree, id: int, spec: SearchSpec, decode: Decode) -> Leaf:
    """The answer that ends at a node."""
    # `decode` starts with the end of a thought if the prompt does not open one.
    node, mark = tree.nodes[id], decode(())
    text = text_before_stop(decode(tree.path(id)), spec.stop, len(mark))
    finished = node.state == "finished"
    # As in evaluation, a response that was cut off has no answer.
    answer = extract_answer(text) if finished else None
    text = text.removeprefix(mark if spec.raw and mark == END_OF_THOUGHT else "")
    return Leaf(id, text, answer, node.value, node.group, tree.end(id), "stop" if finished else "length")
