"""The files of stage tune on a node: pairs and paths in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vgs_ray.data.files import atomic_folder
from vgs_ray.data.storage import AnyPath
from vgs_ray.value.tuning.pairs import write_pairs
from vgs_ray.value.tuning.stored_paths import write_paths


def write_store(
    pairs: Sequence[AnyPath], paths: Sequence[AnyPath], folder: Path, max_length: int, vocabulary: int
) -> None:
    """Copy what fits to `folder`, which is complete or absent.

    Args:
        pairs: Parquet files of the table `pairs`.
        paths: Parquet files of the table `value_paths`.
        folder: of the store, on a local disk.
        max_length: maximum number of tokens of a sequence.
        vocabulary: number of token ids of the policy.

    Raises:
        UserError: a pair has an empty side, or a pair or a path has a token id that the policy does not have.
    """
    with atomic_folder(folder) as temporary:
        write_pairs(pairs, temporary, max_length, vocabulary)
        write_paths(paths, temporary, max_length, vocabulary)
