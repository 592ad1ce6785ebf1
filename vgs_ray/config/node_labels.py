"""Labels of nodes: which nodes a stage may use.

In: `Labels` of a recipe, KEY=VALUE each. Out: a label selector for Ray, and whether a node matches. Syntax and meaning are those
of Ray's label selectors: VALUE, !VALUE, in(A,B) and !in(A,B).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vgs_ray.errors import option_name

if TYPE_CHECKING:
    from vgs_ray.config import Recipe

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"(?:[a-z0-9.-]+/)?{_NAME}=!?(?:{_NAME}|in\({_NAME}(?:,{_NAME})*\))")


def selector(labels: Iterable[str]) -> dict[str, str]:
    """Ray's label selector."""
    return dict(label.split("=", 1) for label in labels)


def matches(node: Mapping[str, str], labels: Iterable[str]) -> bool:
    """Whether a node with the labels `node` satisfies all conditions. A node without a label satisfies only `!`."""
    return all(_holds(node.get(key), condition) for key, condition in selector(labels).items())


def values_of(condition: str) -> set[str]:
    """The values that a condition names."""
    return set(re.sub(r"^in\((.*)\)$", r"\1", condition.removeprefix("!")).split(","))


def _holds(value: str | None, condition: str) -> bool:
    return (value in values_of(condition)) != condition.startswith("!")


def label_fault(field: str, labels: tuple[str, ...]) -> str | None:
    """The mistake in a field of labels, with the value, the rule and the remedy."""
    wrong = [label for label in labels if not _LABEL.fullmatch(label)]
    if wrong or len(selector(labels)) < len(labels):
        return (
            f"{field} is {' '.join(labels)!r}; it must be KEY=VALUE items with different keys, such as "
            f"ray.io/accelerator-type=H100: pass another {option_name(field)}"
        )
    return None


def nodes_of(recipe: Recipe, stage: str) -> tuple[str, ...]:
    """The labels that all tasks and actors of a stage ask for. Those of a generator of roll-ins may ask for more."""
    if stage == "roll_in":
        own = [generator.resources or recipe.roll_in.resources for generator in recipe.roll_in.generators]
        common = set.intersection(*(set(resources.nodes) for resources in own)) if own else set()
        return tuple(sorted(common))
    if stage in ("roll_out", "trees", "evaluate"):
        nodes: tuple[str, ...] = getattr(recipe, stage).resources.nodes
        return nodes
    if stage in ("train", "tune"):
        return (recipe.train if stage == "train" else recipe.tune).nodes
    return recipe.cpu_nodes
