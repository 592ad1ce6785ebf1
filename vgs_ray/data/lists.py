"""Lists of tokens and values: Arrow list columns to numpy arrays and back, without Python objects for the items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def arrays(column: pa.ChunkedArray | pa.Array) -> list[NDArray[Any]]:
    """The rows of a list column as numpy views."""
    return [row.values.to_numpy() for row in column]


def ragged(rows: Sequence[NDArray[Any]], item: pa.DataType) -> pa.ListArray:
    """A list column from one array for each row.

    Raises:
        pyarrow.ArrowInvalid: there are 2**31 items or more in all. A batch of problems has far fewer.
    """
    flat = np.concatenate([np.empty(0, item.to_pandas_dtype()), *rows])
    return nested(pa.array(flat, item), [len(row) for row in rows])


def nested(items: pa.Array, lengths: Sequence[int] | NDArray[np.int64]) -> pa.ListArray:
    """A list column of consecutive items; row i has `lengths[i]` of them."""
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), items)


def common_prefix_length(a: NDArray[Any], b: NDArray[Any]) -> int:
    """The number of leading items that two arrays share."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
