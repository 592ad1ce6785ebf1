"""Names of sources of problems in recipes: a file, a folder, the URL of one of these, or a data set on Hugging Face."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from vgs_ray.errors import UserError

SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "jsonl", ".json": "json"}


class HubId(NamedTuple):
    """A data set on Hugging Face, written `id`, `id@revision` or `id@revision:config/split`."""

    id: str
    revision: str | None
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> HubId:
        """Split the name of a data set into its parts.

        Raises:
            UserError: the text is a path, or not the id of a data set.
        """
        name, _, place = source.partition(":")
        config, _, split = place.partition("/")
        id, _, revision = name.partition("@")
        if name.endswith(tuple(SUFFIXES)) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", id):
            raise UserError(
                f"{source} does not exist; a source is `sandbox`, a {', '.join(SUFFIXES)} file or folder, or a Hugging Face "
                "data set id such as open-r1/OpenR1-Math-220k or id@revision:config/split: check the path"
            )
        return cls(id, revision or None, config or None, split or "train")


def benchmark_label(name: str) -> str:
    """The name of a benchmark in reports: a known name, the name of its file, or of its data set and subset."""
    if "://" in name:
        name = name.partition("://")[2]
    place = name.partition(":")[2]
    path = Path(name.partition(":")[0].partition("@")[0])
    label = path.stem if path.suffix in SUFFIXES else path.name
    return f"{label}:{place}" if place else label
