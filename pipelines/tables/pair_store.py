"""The pairs and the paths that stage tune reads, on the disk of each node that trains."""

from __future__ import annotations

from pathlib import Path

from pipelines.tables.node_store import NodeStore, node_store
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.models import model_path
from vgs_ray.models.folder import local_folder
from vgs_ray.value.tuning.store import write_store
from vgs_ray.value.weights import read_config


def pair_store(recipe: Recipe) -> NodeStore:
    """The store of a recipe. `open_pair_store` fills it."""
    tables = (stage_table(recipe, name) for name in ("pairs", "value_paths"))
    store = node_store(recipe.stage_folder("tune"), *tables)
    return store._replace(key=f"{store.key}\n{recipe.tune.max_length}")


def open_pair_store(recipe: Recipe, store: NodeStore) -> Path:
    """The folder of the store on this node, complete.

    Raises:
        UserError: a pair has an empty side, or a pair or a path has a token id that the policy does not have.
    """

    def fill(folder: Path) -> None:
        if not folder.exists():
            pairs, paths = store.files
            init = local_folder(model_path(recipe.resolved_tune.init))
            write_store(pairs, paths, folder, recipe.tune.max_length, read_config(init).vocab_size)

    return store.open(fill)
