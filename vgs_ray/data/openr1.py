"""Published layouts: read and write OpenR1-VM (one row per problem, its responses in lists), write OpenR1-Cleaned. Pure.

In OpenR1-VM, `roll_in_ids` and `roll_outs_ids` have one list for each response: the input of the policy (prompt and roll-in
up to the cut), and the tokens that it generated. The published trainer concatenates the two and otherwise reads only `labels`.
The documentation does not say whether `reward` and `processed_answer` are lists. They are written as lists with one item for each
response, and both forms can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vgs_ray.data.ids import roll_in_id, roll_out_id
from vgs_ray.data.lists import arrays, common_prefix_length, nested, ragged
from vgs_ray.data.schemas import LABELS, PROBLEMS, ROLL_INS, ROLL_OUTS, TOKENS, VERIFIED

VM = pa.schema(
    [
        pa.field("message_id", pa.string()),  # our problem_id
        pa.field("problem", pa.string()),
        pa.field("solution", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("reward", pa.list_(pa.float32())),  # 1 for a correct response, else 0
        pa.field("roll_in_ids", pa.list_(TOKENS)),
        pa.field("roll_outs_ids", pa.list_(TOKENS)),
        pa.field("processed_answer", pa.list_(pa.string())),  # the content of the last box; null without one
        pa.field("labels", pa.list_(pa.int64())),  # 0 incorrect, 1 correct, 2 incomplete
    ]
)

CLEANED = pa.schema([(name, pa.string()) for name in ("message_id", "problem", "solution", "answer", "source")])

REQUIRED = ("problem", "answer", "roll_in_ids", "roll_outs_ids", "labels")
OUTCOMES = ("incorrect", "correct", "incomplete")
POLICY = "imported"


def cleaned_rows(problems: pa.Table) -> pa.Table:
    """Convert our problems to rows of OpenR1-Cleaned."""
    return problems.rename_columns({"problem_id": "message_id"}).select(CLEANED.names).cast(CLEANED)


def vm_rows(problems: pa.Table, responses: pa.Table) -> pa.Table:
    """Convert responses to OpenR1-VM, one row for each problem.

    Args:
        problems: problem_id, problem, solution, answer; one row for each distinct problem of `responses`, in that order.
        responses: problem_id, given (prompt and roll-in up to the cut), tokens, answer, label; the rows of a problem are
            consecutive.
    """
    responses = responses.combine_chunks()
    labels = responses["label"].to_numpy().astype(np.int64)
    changes = np.flatnonzero(responses["problem_id"].to_numpy()[1:] != responses["problem_id"].to_numpy()[:-1]) + 1
    lengths = np.diff([0, *changes, len(labels)]) if len(labels) else np.empty(0, np.int64)
    items = {
        "reward": pa.array(labels == 1).cast(pa.float32()),
        "roll_in_ids": responses["given"].combine_chunks(),
        "roll_outs_ids": responses["tokens"].combine_chunks(),
        "processed_answer": responses["answer"].combine_chunks(),
        "labels": pa.array(labels),
    }
    columns = {name: nested(_single_array(array), lengths) for name, array in items.items()}
    texts = {name: problems[name] for name in ("problem", "solution", "answer")}
    return pa.table({"message_id": problems["problem_id"], **texts, **columns}).select(VM.names).cast(VM)


def _single_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


class Response(NamedTuple):
    """One response of a row of OpenR1-VM: its input tokens, its generated tokens, its label and its answer."""

    given: NDArray[np.int32]
    added: NDArray[np.int32]
    label: int
    answer: str | None


def our_tables(
    rows: pa.Table, problem_ids: Sequence[str], splits: Sequence[str], first: int = 0
) -> dict[str, pa.Table]:
    """Convert rows of OpenR1-VM to our tables. The layout has no seeds, policies, sampling settings and unknown outcomes.

    If the input of one response is a prefix of the input of another, both share a roll-in, whose tokens are stored once. The
    prompt is the common prefix of the inputs of all responses to a problem.

    Args:
        rows: rows of OpenR1-VM with at least the columns in `REQUIRED`.
        problem_ids: our id for each row.
        splits: train or validation for each row.
        first: number of the first row, for error messages.

    Returns:
        The tables of the stages clean, roll_in, roll_out, verify and label. A null answer stays null.

    Raises:
        ValueError: a column is missing, or a row has no problem, a null instead of a list, label or token, lists of different
            lengths, an empty roll-in, a token id under 0 or over 2**31 - 1, or a label other than 0, 1 and 2. The message
            names the row.
    """
    check_columns(rows.schema)
    tables: dict[str, list[dict[str, Any]]] = {"clean": [], "roll_in": [], "roll_out": [], "verify": [], "label": []}
    for index, (problem, split) in enumerate(zip(problem_ids, splits, strict=True)):
        row = rows.slice(index, 1)
        try:
            texts = {name: _text(row, name) for name in ("problem", "answer", "solution", "source")}
            if not texts["problem"]:
                raise ValueError("problem is null or empty")
            _add_responses(tables, problem, split, _responses(row))
        except ValueError as error:
            name = repr(row["problem"][0].as_py())[:60]
            raise ValueError(
                f"row {first + index} (problem {name}) is invalid: {error}. Fix the row or remove it from the file"
            ) from error
        tables["clean"].append({"problem_id": problem, "split": split, **texts})
    schemas = {"clean": PROBLEMS, "roll_in": ROLL_INS, "roll_out": ROLL_OUTS, "verify": VERIFIED, "label": LABELS}
    return {name: pa.Table.from_pylist(tables[name], schema=schema) for name, schema in schemas.items()}


def check_columns(schema: pa.Schema) -> None:
    """Raise ValueError if a required column is missing."""
    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}; OpenR1-VM has {', '.join(REQUIRED)} (found: {schema.names})")


def _text(row: pa.Table, name: str) -> str | None:
    """The text or number in a column of a one-row table. None if it is null or the table lacks the column."""
    value = row[name][0].as_py() if name in row.schema.names else None
    if isinstance(value, list | dict | bytes):
        raise ValueError(f"{name} has the type {row[name].type}, and must be text")
    return None if value is None else str(value)


def _items(row: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """The items of a row's list, cast to a type. Null items are an error."""
    try:
        items = row[name].cast(pa.list_(kind))[0].values
    except pa.ArrowException as error:
        raise ValueError(f"{name} has a value that is not {kind} ({str(error)[:80]})") from error
    if items is None:
        raise ValueError(f"{name} is null, and must be a list with an item for each response")
    if items.null_count:
        raise ValueError(f"{name} has null as item {pc.index(pc.is_null(items), True)}")
    return items


def _token_lists(row: pa.Table, name: str) -> list[NDArray[np.int32]]:
    """A row's lists of token ids, checked to be 0 or more."""
    lists = _items(row, name, TOKENS)
    tokens = lists.flatten()
    if tokens.null_count:
        raise ValueError(f"{name} has a null among its tokens")
    if len(tokens) and (lowest := pc.min(tokens).as_py()) < 0:
        raise ValueError(f"{name} has the token id {lowest}, and ids start at 0")
    return arrays(lists)


def _responses(row: pa.Table) -> list[Response]:
    given, added = (_token_lists(row, name) for name in ("roll_in_ids", "roll_outs_ids"))
    labels = _items(row, "labels", pa.int8()).to_pylist()
    if not len(given) == len(added) == len(labels):
        raise ValueError(
            f"it has {len(given)} roll-ins, {len(added)} roll-outs and {len(labels)} labels, and must have equally many"
        )
    if not {*labels} <= {0, 1, 2}:
        raise ValueError(f"its labels have the values {sorted({*labels})}, and must be 0, 1 or 2")
    if not labels:
        raise ValueError("it has no responses")
    if not all(map(len, given)):
        raise ValueError("a list of roll_in_ids is empty, and must begin with the tokens of the prompt")
    return [Response(*values) for values in zip(given, added, labels, _answers(row, len(labels)), strict=True)]


def _answers(row: pa.Table, count: int) -> list[str | None]:
    """The answer of each response. All are None unless the row has one for each response."""
    answers = row["processed_answer"][0].as_py() if "processed_answer" in row.schema.names else None
    if not isinstance(answers, list) or len(answers) != count:
        return [None] * count
    return [None if answer is None else str(answer) for answer in answers]


def _add_responses(
    tables: dict[str, list[dict[str, Any]]], problem: str, split: str, responses: list[Response]
) -> None:
    order = sorted(range(len(responses)), key=lambda index: responses[index].given.tobytes())
    prompt = common_prefix_length(responses[order[0]].given, responses[order[-1]].given)
    unknown = {"seed": 0, "sampling": "{}", "engine": POLICY}
    for number, chain in enumerate(prefix_chains([responses[index].given for index in order])):
        roll_in = roll_in_id(problem, POLICY, number)
        longest = responses[order[chain[-1]]].given
        tables["roll_in"].append(
            {**unknown, "roll_in_id": roll_in, "problem_id": problem, "policy": POLICY, "prompt": longest[:prompt],
             "tokens": longest[prompt:], "finish_reason": "stop"}
        )  # fmt: skip
        for place, member in enumerate(chain):
            each = responses[order[member]]
            ids = {"roll_out_id": roll_out_id(roll_in, place), "roll_in_id": roll_in, "problem_id": problem}
            cut, outcome = len(each.given) - prompt, OUTCOMES[each.label]
            finish = "length" if outcome == "incomplete" else "stop"
            tables["roll_out"].append(
                {**unknown, **ids, "policy": POLICY, "cut": cut, "tokens": each.added, "finish_reason": finish}
            )
            tables["verify"].append({**ids, "answer": each.answer, "outcome": outcome, "reason": POLICY})
            tables["label"].append({**ids, "cut": cut, "split": split, "label": each.label})


def prefix_chains(given: Sequence[NDArray[np.int32]]) -> list[list[int]]:
    """Runs of consecutive inputs of which each is a prefix of the next. `given` must be sorted by its bytes."""
    chains: list[list[int]] = []
    for index, tokens in enumerate(given):
        if index and tokens.tobytes().startswith(given[index - 1].tobytes()):
            chains[-1].append(index)
        else:
            chains.append([index])
    return chains


def given_tokens(cuts: Sequence[int], roll_ins: pa.Table) -> pa.ListArray:
    """The input tokens of the policy: the prompt and the roll-in up to the cut.

    Args:
        cuts: the cut of each response.
        roll_ins: the prompt and tokens of each response's roll-in, in the same order.
    """
    parts = zip(arrays(roll_ins["prompt"]), arrays(roll_ins["tokens"]), cuts, strict=True)
    return ragged([np.concatenate([prompt, tokens[:cut]]) for prompt, tokens, cut in parts], pa.int32())
