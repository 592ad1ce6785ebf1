"""The Arrow schema of each table. They are the contract between stages: every Parquet file is written with one of them."""

from __future__ import annotations

import pyarrow as pa

TOKENS = pa.list_(pa.int32())

PROBLEMS = pa.schema(
    [
        pa.field("problem_id", pa.string(), nullable=False),  # hash of the normalised problem text
        pa.field("problem", pa.string(), nullable=False),
        pa.field("answer", pa.string()),  # gold answer, LaTeX; null only in an import whose source has none
        pa.field("source", pa.string()),
        pa.field("solution", pa.string()),
        pa.field("split", pa.string(), nullable=False),  # train | validation | test
    ]
)

PROBLEMS_DROPPED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the source
        pa.field("problem", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("source", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("evidence", pa.string()),
    ]
)

# A row inside stage clean, on its way to one of the two tables above. Not written to disk.
PROBLEMS_CHECKED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        *(pa.field(name, pa.string()) for name in ("problem", "answer", "solution", "source", "problem_id")),
        pa.field("split_key", pa.uint64()),  # see vgs_ray.data.splits
        pa.field("reason", pa.string()),  # null: the row passes all rules for single rows
        pa.field("evidence", pa.string()),
        pa.field("contamination", pa.string()),  # the evidence; null without contamination
        pa.field("text", pa.uint64()),  # this field and the next ones: the fingerprint, see vgs_ray.cleaning.copies
        pa.field("shingles", pa.list_(pa.uint32())),
        pa.field("bands", pa.list_(pa.uint64())),
    ]
)

ROLL_INS = pa.schema(
    [
        pa.field("roll_in_id", pa.string(), nullable=False),  # {problem_id}/{policy}/{index}
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("prompt", TOKENS, nullable=False),  # the tokens of the prompt, including the chat template
        pa.field("tokens", TOKENS, nullable=False),  # the response only
        pa.field("finish_reason", pa.string(), nullable=False),  # stop | length | error
        pa.field("sampling", pa.string(), nullable=False),  # JSON
        pa.field("engine", pa.string(), nullable=False),  # such as vllm 0.29.0
        pa.field("error", pa.string()),
    ]
)

ROLL_OUTS = pa.schema(
    [
        pa.field("roll_out_id", pa.string(), nullable=False),  # {roll_in_id}/{cut index}, or {roll_in_id}/whole
        pa.field("roll_in_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field(
            "policy", pa.string(), nullable=False
        ),  # the reference policy: folder, URL or hub id; of a whole roll-in, its `policy`
        pa.field("cut", pa.int32(), nullable=False),  # roll-in tokens before the completion
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("tokens", TOKENS, nullable=False),  # the completion only
        pa.field("finish_reason", pa.string(), nullable=False),  # stop | length | error
        pa.field("sampling", pa.string(), nullable=False),  # JSON
        pa.field("engine", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)


def _requests(table: pa.Schema) -> pa.Schema:
    """The columns of a table that are known before generation, and the request to the policy."""
    made = {"tokens", "finish_reason", "sampling", "engine", "error"}
    known = [field for field in table if field.name not in made]
    return pa.schema([*known, pa.field("prefix", TOKENS), pa.field("max_tokens", pa.int32())])


ROLL_IN_REQUESTS, ROLL_OUT_REQUESTS = _requests(ROLL_INS), _requests(ROLL_OUTS)

VERIFIED = pa.schema(
    [
        pa.field("roll_out_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("answer", pa.string()),  # the content of the last complete box
        pa.field("outcome", pa.string(), nullable=False),  # correct | incorrect | incomplete | unknown
        pa.field("reason", pa.string(), nullable=False),
    ]
)

LABELS = pa.schema(
    [
        pa.field("roll_out_id", pa.string(), nullable=False),
        pa.field("roll_in_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("cut", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train | validation
        pa.field("label", pa.int8(), nullable=False),  # 0 incorrect, 1 correct, 2 incomplete
        # One for each completion token, NaN for a token without a value; null for kind outcome.
        pa.field("values", pa.list_(pa.float32())),
    ]
)

TREES = pa.schema(
    [
        pa.field("tree_id", pa.string(), nullable=False),  # {problem_id}/tree/{index}
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train | validation
        pa.field("policy", pa.string(), nullable=False),  # folder, URL or hub id
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("prompt", TOKENS, nullable=False),
        # The nodes below the root, in the order of their ids, which start at 1. The root has the id 0.
        pa.field("parents", pa.list_(pa.int32()), nullable=False),
        pa.field("tokens", pa.list_(TOKENS), nullable=False),  # of the block alone
        pa.field("states", pa.list_(pa.string()), nullable=False),  # kept | pruned | finished | length
        pa.field("logprobs", pa.list_(pa.float64()), nullable=False),  # mean log-probability of the tokens
        pa.field("values", pa.list_(pa.float64()), nullable=False),  # of the value model, in [0, 1]; null if not scored
        pa.field("q", pa.list_(pa.float32()), nullable=False),  # in [-1, 1]; null without a value or an outcome
        pa.field("visits", pa.list_(pa.int32()), nullable=False),
        pa.field("outcomes", pa.list_(pa.string()), nullable=False),  # of finished and length; null for other nodes
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)

# A tree that is to be grown. Not written to disk.
TREE_REQUESTS = pa.schema(
    [
        *(TREES.field(name) for name in ("tree_id", "problem_id", "split", "policy", "seed")),
        pa.field("problem", pa.string()),
        pa.field("answer", pa.string()),
    ]
)

PAIRS = pa.schema(
    [
        # {tree_id}/{id of chosen}/{id of rejected}; before the last, {index of its tree}. if that is another tree
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("tree_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train | validation
        pa.field("prompt_ids", TOKENS, nullable=False),  # the prompt of the policy and the shared prefix of the answer
        pa.field("chosen_ids", TOKENS, nullable=False),
        pa.field("rejected_ids", TOKENS, nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # this field and the next two: the same as text
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("q_chosen", pa.float32(), nullable=False),  # in [-1, 1]
        pa.field("q_rejected", pa.float32(), nullable=False),
        pa.field("visits_chosen", pa.int32(), nullable=False),
        pa.field("visits_rejected", pa.int32(), nullable=False),
        pa.field("depth", pa.int32(), nullable=False),  # blocks before the pair
    ]
)

VALUE_PATHS = pa.schema(
    [
        pa.field("path_id", pa.string(), nullable=False),  # {tree_id}/{id of the last node}
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("tree_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train | validation
        pa.field("tokens", TOKENS, nullable=False),  # the prompt of the policy and the blocks
        pa.field(
            "positions", pa.list_(pa.int32()), nullable=False
        ),  # in `tokens`, of the last token of each block with a target
        pa.field("q", pa.list_(pa.float32()), nullable=False),  # the targets, in [-1, 1]
        pa.field("outcome", pa.string()),  # of the path; null if it has not ended
    ]
)

UNPAIRED_TREES = pa.schema(
    [
        pa.field("tree_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # see vgs_ray.labels.preferences
    ]
)

SEARCHES = pa.schema(
    [
        pa.field("search_id", pa.string(), nullable=False),  # {benchmark}/{problem_id}/{explorer}
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("explorer", pa.string(), nullable=False),  # sample | beam | greedy | the name of a variant
        pa.field("gold", pa.string(), nullable=False),
        pa.field("tree", pa.string(), nullable=False),  # JSON, see vgs_ray.search.tree
        pa.field("leaves", pa.string(), nullable=False),  # JSON list: node, group, answer, outcome, reason, value
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)

TABLES = {
    "problems": PROBLEMS,
    "problems_dropped": PROBLEMS_DROPPED,
    "roll_ins": ROLL_INS,
    "roll_outs": ROLL_OUTS,
    "verified": VERIFIED,
    "labels": LABELS,
    "trees": TREES,
    "pairs": PAIRS,
    "unpaired_trees": UNPAIRED_TREES,
    "value_paths": VALUE_PATHS,
    "searches": SEARCHES,
}
