"""Which part of a table holds a key, so that a lookup of some keys opens those parts and no others."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq


class KeyIndex:
    """Hashes of all keys of a table, sorted: 20 bytes a row in each process that looks up."""

    def __init__(self, files: list[str], key: str, before: KeyIndex | None = None) -> None:
        known: dict[str, np.ndarray] = before.parts if before else {}
        self.files = files
        self.parts: dict[str, np.ndarray] = {
            file: known[file] if file in known else _hashes(file, key) for file in files
        }
        hashes = np.concatenate([np.empty(0, np.int64), *self.parts.values()])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        sizes = [len(part) for part in self.parts.values()]
        self._file = np.repeat(np.arange(len(files), dtype=np.int32), sizes)[order]

    def has(self, keys: list[str]) -> bool:
        begin, end = self._ranges(keys)
        return bool((begin < end).all())

    def files_with(self, keys: list[str]) -> list[str]:
        """Parts with one of the keys (or, in rare cases, with a key of the same hash)."""
        spans = zip(*self._ranges(keys), strict=True)
        return [self.files[code] for code in sorted({int(c) for begin, end in spans for c in self._file[begin:end]})]

    def _ranges(self, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
        wanted = np.fromiter(map(hash, keys), np.int64, len(keys))
        return np.searchsorted(self._hashes, wanted, "left"), np.searchsorted(self._hashes, wanted, "right")


def _hashes(file: str, key: str) -> np.ndarray:
    keys = pq.read_table(file, columns=[key])[key]
    return np.fromiter(map(hash, keys.to_pylist()), np.int64, len(keys))
