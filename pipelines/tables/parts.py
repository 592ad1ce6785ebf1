"""Parts: the files in which a stage that is not finished commits its rows, in the folder `_parts` of its table.

A part is whole or absent, and its rows are committed from then on. Its name has a hash of the ids of its rows and their number,
as in `0f3a...-128.parquet`, so a retried write replaces its own part, and rows are counted without opening a file. The files in
the folder `NAME/` are pieces of the part `NAME.parquet`: once the part exists, readers ignore them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from upath import UPath

from vgs_ray.data.storage import list_files

FOLDER = "_parts"
SUFFIX = ".parquet"


class Part(NamedTuple):
    """A part, or a piece of one.

    Attributes:
        name: path in the folder `_parts`, without the suffix.
        rows: number of rows.
        size: of the file in bytes.
    """

    name: str
    rows: int
    size: int


def part_name(ids: Sequence[object]) -> str:
    """The name of a part with these ids in this order."""
    digest = hashlib.blake2b("\n".join(map(str, ids)).encode(), digest_size=8).hexdigest()
    return f"{digest}-{len(ids)}"


def piece_name(part: str, ids: Sequence[object]) -> str:
    """The name of a piece of a part."""
    return f"{part}/{part_name(ids)}"


def list_parts(folder: UPath, of: str = "", merging: bool = True) -> list[Part]:
    """The parts in a folder `_parts`, and the pieces whose part does not exist, sorted by name.

    A listing is not a snapshot: it may pass the place of a part before its pieces are merged into it, and the pieces after they
    are removed. A second listing then has the part, so every row that was committed before this call is in the result.

    Args:
        folder: the folder.
        of: list only the pieces of this part.
        merging: list twice. Without it, rows that are merged during the call may be missing.
    """
    below, listed = f"{of}/" if of else "", folder / of if of else folder
    found = list_files(listed) | (list_files(listed) if merging else {})
    sizes = {f"{below}{name}": size for name, size in found.items()}
    names = {
        name.removesuffix(SUFFIX): size for name, size in sizes.items() if name.endswith(SUFFIX)
    }  # no temporary files
    parts = [name for name in names if "/" not in name or name.partition("/")[0] not in names]
    return [Part(name, int(name.rpartition("-")[2]), names[name]) for name in sorted(parts)]
