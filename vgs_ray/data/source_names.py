"""How a recipe names a source of problems: a file, a folder, or a data set on Hugging Face."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "jsonl", ".json": "json"}


class SourceError(ValueError):
    """A source that can't be read. The text names it, the rule and the remedy."""


class HubId(NamedTuple):
    """A data set on Hugging Face, written `id`, `id@revision` or `id@revision:config/split`."""

    id: str
    revision: str | None
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> HubId:
        """Its parts.

        Raises:
            SourceError: it looks like a path, or is no id.
        """
        name, _, place = source.partition(":")
        config, _, split = place.partition("/")
        id, _, revision = name.partition("@")
        if name.endswith(tuple(SUFFIXES)) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", id):
            raise SourceError(
                f"{source} does not exist; a source is `sandbox`, a {', '.join(SUFFIXES)} file or folder, or a Hugging Face "
                "data set id such as open-r1/OpenR1-Math-220k or id@revision:config/split: check the path"
            )
        return cls(id, revision or None, config or None, split or "train")


def label_of(name: str) -> str:
    """What reports call a benchmark: a known name, that of a file, or that of a data set with the subset that is named."""
    place = name.partition(":")[2]
    path = Path(name.partition(":")[0].partition("@")[0])
    label = path.stem if path.suffix in SUFFIXES else path.name
    return f"{label}:{place}" if place else label
