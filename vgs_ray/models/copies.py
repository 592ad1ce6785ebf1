"""Local copies of models on an object store, in the user's cache: downloaded once per machine, and again when they change.

The name of a copy has a hash of the URL and of the names, sizes and entity tags of its files. Before a download, copies that no
process has used for a day are deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import BaseError

from vgs_ray.data.files import download_folder
from vgs_ray.data.local_copies import make_once
from vgs_ray.data.node_disk import remove_unused
from vgs_ray.data.storage import AnyPath, cause_of, object_store

SUBFOLDERS = ("value_head",)
"""Folders below that of a model which belong to it. Others, such as checkpoints, are not copied."""
SMALL = (".json", ".jinja", ".model", ".txt")
"""Files of the configuration and the tokenizer."""
ATTEMPTS = 5
"""Downloads of a model that another process is writing meanwhile."""
KEPT_S = 24 * 3600.0

Versions = Mapping[str, str]
"""The version of each file, by its path in the folder."""


class Changed(Exception):
    """A model was changed while it was downloaded."""


def cache_folder() -> Path:
    """The folder of this package in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgs_ray"


def cached_copy(folder: AnyPath, weights: bool = True) -> Path:
    """The local copy of a model's folder.

    Args:
        folder: on an object store.
        weights: False leaves out the weights.

    Raises:
        ValueError: there are no files, they can't be read, or they change again and again.
    """
    for _ in range(ATTEMPTS):
        versions = file_versions(folder, weights)
        if not versions:
            raise ValueError(f"{folder} has no files; it must be the URL of a model's folder: check the URL")
        copy = cache_folder() / "models" / f"{folder.name}-{_key(folder, versions)}"
        if not copy.is_dir():
            remove_unused(copy.parent, after_s=KEPT_S)
        with suppress(Changed):
            return make_once(copy, partial(_download, folder, weights, versions))
    raise ValueError(f"{folder} was changed during each of {ATTEMPTS} downloads: wait until it is complete")


def file_versions(folder: AnyPath, weights: bool = True) -> dict[str, str]:
    """The files of a model on an object store, each with a text that changes with its content.

    Raises:
        ValueError: the object store can't be reached or refuses the request.
    """
    store, key = object_store(folder)
    try:
        objects = [item for batch in obstore.list(store, prefix=f"{key}/") for item in batch]
    except BaseError as error:
        raise ValueError(f"{folder} can't be listed: {cause_of(error)}") from error
    found = {item["path"].removeprefix(f"{key}/"): f"{item['size']} {item['e_tag']}" for item in objects}
    return {name: version for name, version in found.items() if _belongs(name, weights)}


def _belongs(name: str, weights: bool) -> bool:
    path = PurePosixPath(name)
    return str(path.parent) in (".", *SUBFOLDERS) and (weights or path.suffix in SMALL)


def _key(folder: AnyPath, versions: Versions) -> str:
    text = "\n".join([str(folder), *(f"{name} {version}" for name, version in sorted(versions.items()))])
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _download(folder: AnyPath, weights: bool, versions: Versions, copy: Path) -> None:
    """Download the files of a model.

    Raises:
        Changed: the files are others now.
        ValueError: a file can't be read.
    """
    try:
        download_folder(folder, copy, versions)
    except FileNotFoundError:
        raise Changed from None
    except BaseError as error:
        raise ValueError(f"{folder} can't be downloaded: {cause_of(error)}") from error
    if file_versions(folder, weights) != versions:
        raise Changed
