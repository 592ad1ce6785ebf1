"""A made-up run of any size, streamed to disk: what bench/scale.py and bench/growth.py feed to the stages.

Like a real run: 14 roll-ins a problem from four policies, 4 cuts each by the square-root law, log-normal lengths, token ids
from a vocabulary of 151,000 with frequencies that fall like 1/rank, a tenth of the problems without hope, a tenth of the
responses cut off. The files are those of a real run: roll-outs come in blocks of 128 rows, whose writers flush every 30 s, which
makes 7 pieces of a block and then a part. The rows of a problem lie in several parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pipelines.actors.block_journal import BlockJournal
from pipelines.recipes import sandbox
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table
from vgs_ray.config import Generator, Label, Recipe, ReferencePolicy
from vgs_ray.data.ids import problem_id
from vgs_ray.data.lists import arrays, ragged
from vgs_ray.data.schemas import PROBLEMS, ROLL_INS, ROLL_OUTS, VERIFIED

PER_PROBLEM, CUTS, POLICIES = 14, 4, ("p1", "p2", "p3", "p4")
RESPONSES = PER_PROBLEM * CUTS
BLOCK_ROWS, PROBLEMS_AT_ONCE = 128, 73  # 73 problems: about two blocks of roll-ins from each policy
FLUSHES = 7  # of the writer of a block
WRITERS = 8
WORDS, ANSWERS = 151_000, 100
END, CLOSED = WORDS, WORDS + 1  # </think> and the token behind it
BOX = WORDS + 2  # \boxed{0} and those that follow
ROLL_IN_LENGTH = 2.4  # of a completion's mean, as in the published data set
ERROR, LENGTH, HOPELESS = 0.002, 0.1, 0.1


def policy(folder: Path) -> str:
    """Save a tokenizer of whole words with the ids above, and a policy of random weights, which no stage here runs."""
    pieces = [f"w{index} " for index in range(WORDS)] + ["</think>", "\n"]
    pieces += [f"\\boxed{{{answer}}}" for answer in range(ANSWERS)] + ["<eos>", "<unk>"]
    inner = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>", chat_template="{{ messages[0]['content'] }}"
    ).save_pretrained(folder)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen2Config(vocab_size=len(pieces), num_key_value_heads=1, **shape)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def recipe_of(root: Path, mean_tokens: int) -> Recipe:
    """The sandbox recipe with the shape of the published run."""
    base = sandbox()
    longest = 16384 * mean_tokens // 5800
    engine = replace(base.roll_in.engine, max_model_len=2 * longest)
    return replace(
        base,
        name="scale",
        root=str(root),
        roll_in=replace(
            base.roll_in,
            generators=tuple(Generator(name, "sandbox:ref") for name in POLICIES),
            per_problem=PER_PROBLEM,
            sampling=replace(base.roll_in.sampling, max_tokens=longest),
            engine=engine,
        ),
        policy=ReferencePolicy(policy(root / "policy")),
        roll_out=replace(
            base.roll_out,
            cuts=CUTS,
            positions="sqrt",
            engine=engine,
            sampling=replace(base.roll_out.sampling, max_tokens=longest),
        ),
        verify=replace(base.verify, workers=2),
        label=Label(hopeless_share=0.0),
        train=replace(base.train, batch_size=1024),
    )


INPUTS = {"clean": (), "roll_in": ("clean",), "roll_out": ("roll_in",), "verify": ("clean", "roll_in", "roll_out")}
"""The stages that can be written, each with those that it reads."""


def inputs(last: str) -> dict[str, tuple[str, ...]]:
    """The stages up to the last one to write."""
    names = list(INPUTS)
    return {name: INPUTS[name] for name in names[: names.index(last) + 1]}


def write_run(recipe: Recipe, problems: int, mean_tokens: int, last: str, seed: int = 0) -> None:
    """Write the parts of the stages up to `last`; memory is that of 73 problems."""
    draw = np.random.default_rng(seed)
    ranks = np.repeat(np.arange(WORDS, dtype=np.int32), 1 + 2_000_000 // (10 + np.arange(WORDS)))
    parts = {name: stage_table(recipe, name) for name in inputs(last)}
    for table in parts.values():
        table.folder.mkdir(parents=True)
    with ThreadPoolExecutor(WRITERS) as writers:
        numbers = sorted(range(problems), key=lambda number: problem_id(_text(number)))  # as stage roll_in reads them
        for begin in range(0, problems, PROBLEMS_AT_ONCE):
            some = _problems(numbers[begin : begin + PROBLEMS_AT_ONCE])
            writes = [writers.submit(parts["clean"].write_part, some)]
            for number, policy in enumerate(POLICIES):
                roll_ins = _roll_ins(some, policy, range(number, PER_PROBLEM, len(POLICIES)), mean_tokens, ranks, draw)
                writes.append(writers.submit(parts["roll_in"].write_part, roll_ins))
                for block in _roll_outs(roll_ins, some, mean_tokens, ranks, draw) if "roll_out" in parts else ():
                    writes.append(writers.submit(write_block, parts["roll_out"], block))
                    if "verify" in parts:
                        writes.append(writers.submit(parts["verify"].write_part, _verified(block, some)))
            for write in writes:
                write.result()


def write_block(table: StageTable, block: pa.Table) -> None:
    """Commit a block as its actor does: a piece at each flush, then the part."""
    journal, step = BlockJournal(table, block[table.key].to_pylist()), -(-len(block) // FLUSHES)
    journal.begin_attempt()
    for begin in range(0, len(block), step):
        journal.commit(block.slice(begin, step))
    journal.merge()


def publish_run(recipe: Recipe, last: str) -> None:
    """Publish the tables that `write_run` wrote, which finishes their stages."""
    for name, before in inputs(last).items():
        stage = open_stage(recipe, name, before)
        assert stage is not None, "the folder is new"
        stage.close(rows=stage.publish(stage_table(recipe, name)).count_rows())


def _text(number: int) -> str:
    return f"Problem {number}: " + "what is the value of the expression below? " * 5


def _problems(numbers: list[int]) -> pa.Table:
    texts = [_text(number) for number in numbers]
    rows = [
        {"problem_id": problem_id(text), "problem": text, "answer": str(number % ANSWERS), "source": "synthetic",
         "solution": text, "split": "validation" if number % 100 == 0 else "train"}
        for number, text in zip(numbers, texts, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PROBLEMS)


def _lengths(mean: float, count: int, draw: np.random.Generator) -> np.ndarray:
    """Log-normal, most of them below the mean, cut off at 2.8 times it (16k of 5.8k)."""
    sigma = 0.7
    drawn = draw.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(drawn, 4, 2.8 * mean).astype(np.int64)


def _tokens(ranks: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    return ranks[draw.integers(0, len(ranks), count)]


def _roll_ins(
    problems: pa.Table, policy: str, indices: range, mean_tokens: int, ranks: np.ndarray, draw: np.random.Generator
) -> pa.Table:
    ids = [(problem, index) for problem in problems["problem_id"].to_pylist() for index in indices]
    lengths, count = _lengths(ROLL_IN_LENGTH * mean_tokens, len(ids), draw), len(ids)
    flat = _tokens(ranks, int(lengths.sum()), draw)
    return pa.table(
        {
            "roll_in_id": [f"{problem}/{policy}/{index}" for problem, index in ids],
            "problem_id": [problem for problem, _ in ids],
            "policy": [policy] * count,
            "seed": draw.integers(0, 2**31, count),
            "prompt": ragged([np.arange(40, dtype=np.int32)] * count, pa.int32()),
            "tokens": ragged(np.split(flat, np.cumsum(lengths)[:-1]), pa.int32()),
            "finish_reason": ["stop"] * count,
            "sampling": ["{}"] * count,
            "engine": ["none"] * count,
            "error": pa.nulls(count, pa.string()),
        },
        schema=ROLL_INS,
    )


def _roll_outs(
    roll_ins: pa.Table, problems: pa.Table, mean_tokens: int, ranks: np.ndarray, draw: np.random.Generator
) -> Iterator[pa.Table]:
    """Blocks of roll-outs, those of one roll-in together."""
    golds = dict(zip(problems["problem_id"].to_pylist(), problems["answer"].to_pylist(), strict=True))
    chance = {problem: _chance(problem) for problem in golds}
    longest = pa.compute.list_value_length(roll_ins["tokens"]).to_numpy()
    cuts = np.sort((longest[:, None] * draw.random((len(roll_ins), CUTS)) ** (2 / 3)).astype(np.int32), axis=1)
    sources = zip(roll_ins["roll_in_id"].to_pylist(), roll_ins["problem_id"].to_pylist(), strict=True)
    rows = [(source, problem, cut) for source, problem in sources for cut in range(CUTS)]
    for begin in range(0, len(rows), BLOCK_ROWS):
        block = rows[begin : begin + BLOCK_ROWS]
        count, finish = len(block), draw.choice(
            ["error", "length", "stop"], len(block), p=[ERROR, LENGTH, 1 - ERROR - LENGTH]
        )  # fmt: skip
        right = draw.random(count) < [chance[problem] for _, problem, _ in block]
        answers = [int(golds[problem]) if ok else (int(golds[problem]) + 7) % ANSWERS
                   for (_, problem, _), ok in zip(block, right, strict=True)]  # fmt: skip
        bodies = [_tokens(ranks, int(length), draw) for length in _lengths(mean_tokens, count, draw)]
        yield pa.table(
            {
                "roll_out_id": [f"{source}/{k}" for source, _, k in block],
                "roll_in_id": [source for source, _, _ in block],
                "problem_id": [problem for _, problem, _ in block],
                "policy": ["reference"] * count,
                "cut": cuts.ravel()[begin : begin + count],
                "seed": draw.integers(0, 2**31, count),
                "tokens": ragged([_end(*row) for row in zip(bodies, finish, answers, strict=True)], pa.int32()),
                "finish_reason": finish.tolist(),
                "sampling": ["{}"] * count,
                "engine": ["none"] * count,
                "error": ["made up" if reason == "error" else None for reason in finish],
            },
            schema=ROLL_OUTS,
        )


def _verified(block: pa.Table, problems: pa.Table) -> pa.Table:
    """What stage verify finds in a block."""
    golds = dict(zip(problems["problem_id"].to_pylist(), problems["answer"].to_pylist(), strict=True))
    answers, outcomes = [], []
    lists = arrays(block["tokens"])
    for tokens, finish, problem in zip(
        lists, *(block[n].to_pylist() for n in ("finish_reason", "problem_id")), strict=True
    ):
        answers.append(str(tokens[-1] - BOX) if finish == "stop" else None)
        judged = "correct" if answers[-1] == golds[problem] else "incorrect"
        outcomes.append({"error": "unknown", "length": "incomplete"}.get(finish, judged))
    columns = [
        block["roll_out_id"],
        block["problem_id"],
        pa.array(answers, pa.string()),
        outcomes,
        ["made up"] * len(block),
    ]
    return pa.table(dict(zip(VERIFIED.names, columns, strict=True)), schema=VERIFIED)


def _chance(problem: str) -> float:
    """A problem's share of correct responses: a function of its id, none for a tenth of them."""
    number = int(problem[:8], 16) / 2**32
    return 0.0 if number < HOPELESS else number


def _end(body: np.ndarray, finish: str, answer: int) -> np.ndarray:
    """A completion: nothing after an error, no end where it was cut off, else the end of the thought and an answer."""
    if finish == "error":
        return body[:0]
    return body if finish == "length" else np.append(body, np.array([END, CLOSED, BOX + answer], np.int32))
