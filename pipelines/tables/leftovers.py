"""What an earlier command left in the folder of a stage that is not complete.

A command that was killed while it published its tables leaves some of their files and the file `_publishing`; all rows are still
in the parts. If there is no `_publishing`, somebody has removed the manifest of a complete stage, for example together with a
damaged file. The other files then become parts again, and the stage only makes the rows that are missing.
"""

from __future__ import annotations

import re

import obstore
from upath import UPath

from pipelines.tables import parts
from pipelines.tables.stage_table import open_file
from vgs_ray.data.files import flush, make_folder, remove_folder, remove_temporary
from vgs_ray.data.storage import is_local, list_files, object_store

PUBLISHING = "_publishing"
PUBLISHED = re.compile(r"part-\d{5}-of-\d{5}\.parquet")


def clear(folder: UPath, keep_parts: bool) -> None:
    """Prepare the folder of a stage that is not complete.

    Args:
        folder: of the stage.
        keep_parts: keep the committed rows.
    """
    if not keep_parts:
        remove_parts(folder)
    names = list_files(folder)
    for name in sorted(names):
        file = name.rpartition("/")[2]
        if file.startswith(".attempts-"):
            (folder / name).unlink(missing_ok=True)
        elif PUBLISHED.fullmatch(file):
            if keep_parts and PUBLISHING not in names:
                _make_part(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    (folder / PUBLISHING).unlink(missing_ok=True)
    remove_temporary(folder)


def remove_parts(folder: UPath) -> None:
    """Remove the parts of all tables of a stage."""
    inside = f"{parts.FOLDER}/"
    for name in {name.partition(inside)[0] for name in list_files(folder) if inside in f"/{name}"}:
        remove_folder(folder / f"{name}{parts.FOLDER}")
    (folder / PUBLISHING).unlink(missing_ok=True)


def _make_part(file: UPath) -> None:
    """Turn a file of a published table into a part."""
    rows = open_file(file).metadata.num_rows
    part = file.parent / parts.FOLDER / f"{file.name.removesuffix(parts.SUFFIX)}-{rows}{parts.SUFFIX}"
    if is_local(file):
        make_folder(part.parent)
        file.replace(part)
        flush(part.parent)
        return
    store, key = object_store(file)
    obstore.copy(store, key, object_store(part)[1])
    obstore.delete(store, key)
