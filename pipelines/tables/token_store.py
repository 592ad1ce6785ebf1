"""The tokens that stage train reads, on the disk of each node that trains."""

from __future__ import annotations

from pathlib import Path

from pipelines.tables.node_store import NodeStore, node_store
from pipelines.tables.stage_table import all_rows, stage_table
from vgs_ray.config import Recipe
from vgs_ray.value.training.store import Sources, build_store


def token_store(recipe: Recipe) -> NodeStore:
    """The store of a recipe. `open_tokens` fills it."""
    tables = stage_table(recipe, "label"), all_rows(recipe, "roll_in"), all_rows(recipe, "roll_out")
    return node_store(recipe.stage_folder("train"), *tables)


def open_tokens(store: NodeStore) -> Path:
    """The folder of the store on this node, complete.

    Raises:
        UserError: the disk is full.
        ValueError: labels and tokens don't fit.
    """
    return store.open(lambda folder: build_store(Sources(*store.files), folder))
