"""The steps of `bench/words_gpu.py`. Each writes its result into the folder of a `Run`, and returns a line of text."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from batched_engines import Generation, TransformersPolicy, TransformersValue

from vgs_ray.answers.judge import Judge
from vgs_ray.config import Recipe, Sampling
from vgs_ray.data.files import atomic_file
from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.data.schemas import LABELS, ROLL_INS, ROLL_OUTS, SEARCHES
from vgs_ray.data.splits import split_bounds, split_key, splits_of
from vgs_ray.evaluate.answer_probability import chosen_answers, probability_rows
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.formats import terminal_table
from vgs_ray.evaluate.graded_search import GradedSearch, leaf_rows, leaf_texts
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import MARKDOWN, write_report
from vgs_ray.labels.label_rows import label_rows
from vgs_ray.labels.sampling_requests import roll_in_requests, roll_out_requests
from vgs_ray.labels.verified_rows import verified_rows
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.flops import model_sizes
from vgs_ray.search.tree import Tree
from vgs_ray.value.attention import choose_attention
from vgs_ray.value.model import ValueModel
from vgs_ray.value.publish import model_card, save_value_model
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import ahead
from vgs_ray.value.training.loader import HELD_OUT, open_splits
from vgs_ray.value.training.metrics import summarize
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker, prepare, whole_weights
from vgs_ray.value.training.step import Trainer
from vgs_ray.value.training.store import Sources, build_store
from vgs_ray.value.training.throughput import training_flops
from vgs_ray.value.training.validation import validate
from vgs_ray.words.train_policy import Settings, train_policy

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """Places and sizes of a run.

    Attributes:
        recipe: recipe `words` with this policy and these sizes.
        model, data, out: see the options.
        device: of all models.
        epochs: passes over the tuning data; 0 uses the model as it is.
        generation: see `TransformersPolicy`.
        rows: maximum number of sequences that are sampled together.
        limits: maximum numbers of rows of tuning.jsonl, problems.jsonl and benchmark.jsonl.
    """

    recipe: Recipe
    model: str
    data: Path
    out: Path
    device: torch.device
    epochs: float
    generation: Generation
    rows: int
    limits: tuple[int, int, int]

    @property
    def context(self) -> int:
        return self.recipe.evaluate.policy_engine.max_model_len

    def policy(self) -> TransformersPolicy:
        """The policy; it is in memory until it is closed."""
        return TransformersPolicy(
            self.recipe.policy.model, self.device, self.context, self.rows, self.generation, self.recipe.seed
        )

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.out / f"{name}.parquet")

    def write(self, name: str, rows: Rows, schema: pa.Schema | None = None) -> None:
        with atomic_file(self.out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def read_rows(file: Path, limit: int) -> Rows:
    return [json.loads(line) for line in file.read_text().splitlines()[:limit]]


def tune(run: Run) -> str:
    """The policy: `--model`, fine-tuned on the first rows of the tuning data."""
    data, gpu = run.out / "tuning.jsonl", run.device.type == "cuda"
    rows = read_rows(run.data / "tuning.jsonl", run.limits[0])
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(init=run.model, epochs=run.epochs, dtype="bfloat16" if gpu else "float32")
    settings = replace(settings, micro_batch=settings.batch_size if gpu else 8)
    train_policy(data, Path(run.recipe.policy.model), settings, checkpoint_every=1_000_000)
    return f"{len(rows):,} rows, {run.epochs:g} epochs"


def read_problems(run: Run) -> str:
    """The problems of the value model, each once, with their splits."""
    rows = {problem_id(row["problem"]): row for row in read_rows(run.data / "problems.jsonl", run.limits[1])}
    keys = np.array([split_key(name) for name in rows], np.uint64)
    splits = splits_of(keys, split_bounds(keys, run.recipe.clean.validation, run.recipe.clean.test)).to_pylist()
    found = [
        {"problem_id": name, **row, "split": split} for (name, row), split in zip(rows.items(), splits, strict=True)
    ]
    run.write("problems", [{key: row[key] for key in ("problem_id", "problem", "answer", "split")} for row in found])
    return f"{len(rows):,} problems, {dict(Counter(splits))}"


def roll_in(run: Run) -> str:
    config, recipe = run.recipe.roll_in, run.recipe
    problems, indices = run.table("problems").to_pylist(), list(range(config.per_problem))
    requests = [row for each in problems for row in roll_in_requests(each, config.generators[0], indices, recipe)]
    return sample_rows(run, "roll_ins", requests, config.sampling, ROLL_INS)


def roll_out(run: Run) -> str:
    roll_ins = run.table("roll_ins").to_pylist()
    requests = [row for each in roll_ins for row in roll_out_requests(each, run.recipe)]
    return sample_rows(run, "roll_outs", requests, run.recipe.roll_out.sampling, ROLL_OUTS)


def sample_rows(run: Run, name: str, requests: Rows, sampling: Sampling, schema: pa.Schema) -> str:
    """Sample a completion for each request, and write the table."""
    policy, began = run.policy(), time.perf_counter()

    async def sample_all() -> Rows:
        calls = [
            policy.extend(tuple(row["prefix"]), replace(sampling, max_tokens=row["max_tokens"]), row["seed"])
            for row in requests
        ]
        made = {"sampling": json.dumps(asdict(sampling)), "engine": f"transformers {transformers.__version__}"}
        return [
            {**row, **made, "tokens": list(each.tokens), "finish_reason": each.finish_reason, "error": None}
            for row, each in zip(requests, await asyncio.gather(*calls), strict=True)
        ]

    rows = asyncio.run(sample_all())
    rate = policy.usage.generated / (time.perf_counter() - began)
    policy.close()
    run.write(name, rows, schema)
    return f"{len(rows):,} rows, {rate:,.0f} generated tokens/s"


def label(run: Run) -> str:
    """The verdicts on the roll-outs, and their labels."""
    roll_outs, problems, recipe = run.table("roll_outs"), run.table("problems"), run.recipe
    tokenizer = load_tokenizer(recipe.policy.model)
    with Judge(4, recipe.judge.timeout_s, recipe.judge.memory_gib) as judge:
        verified = verified_rows(roll_outs, run.table("roll_ins"), problems, tokenizer, judge)
    split_of = dict(zip(problems["problem_id"].to_pylist(), problems["split"].to_pylist(), strict=True))
    splits = pa.array([split_of[name] for name in roll_outs["problem_id"].to_pylist()])
    rows = roll_outs.append_column("outcome", verified["outcome"]).append_column("split", splits)
    labels = label_rows(rows, None, recipe.label).to_pylist()
    run.write("labels", labels, LABELS)
    return f"{len(labels):,} labels, {dict(Counter(verified['outcome'].to_pylist()))}"


def train(run: Run) -> str:
    """The value model, initialized from the policy, and its validation."""
    tables = [[run.out / f"{name}.parquet"] for name in ("labels", "roll_ins", "roll_outs")]
    build_store(Sources(*tables), run.out / "store")
    config, seed, device = run.recipe.resolved_train, run.recipe.seed, run.device
    examples, validation = open_splits(run.out / "store", config)
    attention = choose_attention(config.attention, device, config.attention_dropout, config.micro_tokens)
    model = ValueModel.from_backbone(
        config.init, config.num_labels, config.dropout, seed, attn_implementation=attention
    )
    model, worker = model.to(device), Worker(device=device)
    batches = Batches(examples, config, seed, worker, training_flops(model))
    prepare(model, config, worker)
    trainer = Trainer(model.train(), make_optimizer(model, config), config, worker)
    began, tokens = time.perf_counter(), 0
    for step, prepared in enumerate(ahead(map(batches.prepare, range(config.steps)), device)):
        result = trainer.step(step, prepared)
        tokens += result.tokens
        if step % 20 == 19:
            print(f"  step {step + 1}: loss {result.loss:.3f}", flush=True)
    rate, held_out = tokens / (time.perf_counter() - began), validation.held_out(HELD_OUT)
    predictions = validate(model, [validation.example(int(at)) for at in held_out], config, worker)
    assert predictions
    metrics = summarize(predictions)
    counts = {"train": examples.counts(examples.units()), "validation": validation.counts(held_out)}
    card = model_card("words_gpu", asdict(config), config.steps, metrics, counts)
    save_value_model(model, whole_weights(model), config.init, card, run.out / "value_model")
    shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
    return f"{config.steps} steps, {rate:,.0f} tokens/s; {shown}"


def search(run: Run) -> str:
    """Independent samples and a guided search for each problem of the benchmark, with graded answers."""
    config, recipe, policy, began = run.recipe.evaluate, run.recipe, run.policy(), time.perf_counter()
    value = TransformersValue(str(run.out / "value_model"), run.device, recipe.train.micro_tokens)
    tokenizer = load_tokenizer(recipe.policy.model)
    steps = replace(config.sampling, stop_token_ids=delimiter_tokens(tokenizer, config.beam.delimiter))

    async def solve(problem: str, name: str) -> Tree:
        prompt = prompt_tokens(tokenizer, problem, recipe.instruction)
        seed = stable_seed(recipe.seed, problem_id(problem), name)
        if name == "beam":
            return await beam(policy, value, prompt, beam=config.beam, sampling=steps, seed=seed)
        return await sample(policy, value, prompt, count=config.samples, sampling=config.sampling, seed=seed)

    async def solve_all(searches: list[tuple[str, str]]) -> list[Tree]:
        return await asyncio.gather(*(solve(*each) for each in searches))

    problems = read_rows(run.data / "benchmark.jsonl", run.limits[2])
    names = [(row, name) for name in ("sample", "beam") for row in problems]
    trees = asyncio.run(solve_all([(row["problem"], name) for row, name in names]))
    seconds = time.perf_counter() - began
    policy.close()
    with Judge(4, recipe.judge.timeout_s, recipe.judge.memory_gib) as judge:
        rows = [
            search_row(*each, tree, leaf_texts(tokenizer, tree), judge) for each, tree in zip(names, trees, strict=True)
        ]
    run.write("searches", [{**row, "seconds": seconds / len(rows)} for row in rows], SEARCHES)
    return f"{len(rows):,} searches, {policy.usage.generated / seconds:,.0f} generated tokens/s"


def search_row(problem: dict[str, Any], name: str, tree: Tree, texts: list[str], judge: Judge) -> dict[str, Any]:
    """A row of the table `searches`, without its seconds."""
    identity, gold = problem_id(problem["problem"]), problem["answer"]
    leaves = leaf_rows(tree, judge.grade_all([(gold, text) for text in texts]))
    return {
        "search_id": f"words/{identity}/{name}", "benchmark": "words", "problem_id": identity, "explorer": name, "gold": gold,
        "tree": json.dumps(tree.to_json()), "leaves": json.dumps(leaves), "error": None,
    }  # fmt: skip


def report(run: Run) -> str:
    config, sizes = run.recipe.evaluate, model_sizes(run.recipe.policy.model, str(run.out / "value_model"))
    searches = [GradedSearch.from_row(row, sizes) for row in run.table("searches").to_pylist()]
    searches.sort(key=lambda each: (each.explorer != "sample", each.problem_id))
    with Judge(1, run.recipe.judge.timeout_s, run.recipe.judge.memory_gib) as judge:
        equal = cache(judge.equal)
        results = evaluate_methods(searches, config, equal)
        probabilities = probability_rows(chosen_answers(searches, config, equal))
    statistics = answer_statistics(searches)
    made = write_report(
        run.out / "report", results, statistics, probabilities, resamples=config.bootstrap, seed=run.recipe.seed
    )
    print(f"\n{terminal_table(made['rows'])}\n", flush=True)
    return f"more in {run.out / 'report' / MARKDOWN}"


STEPS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "tune": ("policy", tune),
    "problems": ("problems.parquet", read_problems),
    "roll_in": ("roll_ins.parquet", roll_in),
    "roll_out": ("roll_outs.parquet", roll_out),
    "label": ("labels.parquet", label),
    "train": ("value_model", train),
    "search": ("searches.parquet", search),
    "report": ("report/report.json", report),
}
"""What each step writes last, and its function."""
