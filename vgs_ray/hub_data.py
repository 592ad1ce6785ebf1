"""Data sets on Hugging Face: how a recipe names one, and its rows."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

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


def load(source: str) -> Any:
    """One split, `train` unless told otherwise; its rows stay in memory-mapped files of the library's cache."""
    import datasets

    datasets.disable_progress_bars()
    id, revision, config, split = HubId.parse(source)
    return datasets.load_dataset(id, config, split=split, revision=revision)
