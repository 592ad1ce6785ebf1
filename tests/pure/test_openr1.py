"""Import of OpenR1-VM: errors name the invalid row and the remedy, nulls stay null, and responses survive export and import."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import import_vm
from pipelines.recipes import sandbox
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import ImportVM
from vgs_ray.data.openr1 import cleaned_rows, given_tokens, our_tables, vm_rows
from vgs_ray.errors import UserError


def published(**columns: Any) -> pa.Table:
    """One row of OpenR1-VM with two responses. `columns` replace its columns."""
    row = {
        "problem": ["What is $2+2$?"], "answer": ["4"], "roll_in_ids": [[[1, 2], [1, 2, 3]]],
        "roll_outs_ids": [[[5], [6]]], "labels": [[1, 0]],
    }  # fmt: skip
    return pa.table(row | columns)


IDS = pa.list_(pa.list_(pa.int64()))
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "null label": ({"labels": [[1, None]]}, "labels has null as item 1"),
    "null labels": ({"labels": pa.array([None], pa.list_(pa.int64()))}, "labels is null"),
    "another label": ({"labels": [[1, 5]]}, r"labels have the values \[1, 5\], and must be 0, 1 or 2"),
    "a large label": ({"labels": [[1, 1000]]}, "labels has a value that is not int8"),
    "a text label": ({"labels": [["correct", "no"]]}, "labels has a value that is not int8"),
    "a broken label": ({"labels": [[1, 0.5]]}, "labels has a value that is not int8"),
    "labels of no list": ({"labels": [1]}, "labels has a value that is not int8"),
    "fewer labels": ({"labels": [[1]]}, "2 roll-ins, 2 roll-outs and 1 labels"),
    "fewer roll-outs": ({"roll_outs_ids": [[[5]]]}, "2 roll-ins, 1 roll-outs and 2 labels"),
    "null roll-out": ({"roll_outs_ids": pa.array([[[5], None]], IDS)}, "roll_outs_ids has null as item 1"),
    "null roll-outs": ({"roll_outs_ids": pa.array([None], IDS)}, "roll_outs_ids is null"),
    "null roll-in": ({"roll_in_ids": pa.array([[None, [1]]], IDS)}, "roll_in_ids has null as item 0"),
    "null token": ({"roll_outs_ids": pa.array([[[5], [6, None]]], IDS)}, "roll_outs_ids has a null among its tokens"),
    "negative token": ({"roll_in_ids": [[[1, -2], [1]]]}, "roll_in_ids has the token id -2"),
    "a token above int32": ({"roll_outs_ids": [[[5], [2**31]]]}, "roll_outs_ids has a value that is not list"),
    "empty roll-in": ({"roll_in_ids": pa.array([[[1], []]], IDS)}, "a list of roll_in_ids is empty"),
    "no responses": (
        {"roll_in_ids": pa.array([[]], IDS), "roll_outs_ids": pa.array([[]], IDS), "labels": pa.array([[]], pa.list_(pa.int8()))},
        "it has no responses",
    ),
    "null problem": ({"problem": pa.array([None], pa.string())}, "problem is null or empty"),
    "answers in a list": ({"answer": [["4"]]}, "answer has the type list"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_row_is_named_with_the_remedy(kind: str) -> None:
    columns, named = BAD_ROWS[kind]
    good = published()
    with pytest.raises(ValueError, match=rf"row 41 \(problem .*{named}.*Fix the row or remove it") as raised:
        our_tables(published(**columns), ["p"], ["train"], first=41)
    assert kind == "null problem" or "What is $2+2$?" in str(raised.value)
    if good.schema.equals(published(**columns).schema):  # a good row before it changes nothing but the number
        with pytest.raises(ValueError, match=rf"row 1 \(problem .*{named}"):
            our_tables(pa.concat_tables([good, published(**columns)]), ["p", "q"], ["train", "train"])


def test_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column labels"):
        our_tables(published().drop_columns(["labels"]), ["p"], ["train"])


@pytest.mark.parametrize("column", ["answer", "solution", "source"])
@pytest.mark.parametrize(("value", "expected"), [(None, None), (7, "7"), ("7", "7")])
def test_null_texts_stay_null(column: str, value: Any, expected: str | None) -> None:
    tables = our_tables(published(**{column: pa.array([value])}), ["p"], ["train"])
    assert tables["clean"][column].to_pylist() == [expected]


def test_null_answer_is_imported_and_exported_as_null(tmp_path: Path) -> None:
    tables = our_tables(published(answer=pa.array([None], pa.string())), ["p"], ["train"])
    recipe = replace(sandbox(), root=str(tmp_path))
    parts = stage_table(recipe, "clean")
    parts.folder.mkdir(parents=True)
    parts.write_part(tables["clean"])
    assert parts.read()["answer"].to_pylist() == [None]
    assert cleaned_rows(parts.read())["answer"].to_pylist() == [None]


def test_problem_without_text_stops_the_import_before_ray_starts(tmp_path: Path) -> None:
    pq.write_table(published(problem=pa.array([None], pa.string())), tmp_path / "a.parquet")
    named = "row group 0 of .*a.parquet: row 0 .*its problem is None.*[Cc]orrect this row"
    with pytest.raises(UserError, match=named):
        import_vm.run(replace(sandbox(), root=str(tmp_path), import_vm=ImportVM(str(tmp_path))))


def test_source_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(published().slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no rows to import"):
        import_vm.run(replace(sandbox(), root=str(tmp_path), import_vm=ImportVM(str(tmp_path))))


TOKENS = st.lists(st.integers(0, 2), max_size=4)


@given(st.lists(st.tuples(TOKENS.filter(bool), TOKENS, st.integers(0, 2)), min_size=1, max_size=8))
@settings(deadline=None)
def test_any_responses_survive_both_ways(responses: list[tuple[list[int], list[int], int]]) -> None:
    """The tokens of each response survive export and import, whichever responses share a prefix."""
    given_lists = pa.array([given for given, _, _ in responses], pa.list_(pa.int32()))
    rows = pa.table(
        {"problem_id": ["p"] * len(responses), "given": given_lists,
         "tokens": pa.array([added for _, added, _ in responses], pa.list_(pa.int32())),
         "answer": pa.nulls(len(responses), pa.string()), "label": pa.array([each for *_, each in responses], pa.int8())}
    )  # fmt: skip
    problems = pa.table({"problem_id": ["p"], "problem": ["?"], "solution": ["."], "answer": ["1"]})
    found = our_tables(vm_rows(problems, rows), ["p"], ["train"])
    roll_ins = {row["roll_in_id"]: row for row in found["roll_in"].to_pylist()}
    outs, labels = found["roll_out"].to_pylist(), found["label"].to_pylist()
    sources = pa.Table.from_pylist([roll_ins[row["roll_in_id"]] for row in outs], schema=found["roll_in"].schema)
    given_back = given_tokens([row["cut"] for row in outs], sources).to_pylist()
    back = [(tuple(g), tuple(o["tokens"]), each["label"]) for g, o, each in zip(given_back, outs, labels, strict=True)]
    assert Counter(back) == Counter((tuple(given), tuple(added), each) for given, added, each in responses)
