"""Training takes whatever generation can write: lengths that follow from each other, and labels of what reached the limit."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy import CONFIG, build_store, load, read_rows, sources

from pipelines import train
from pipelines.cli import parse
from pipelines.recipes import RECIPES, vgs
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from pipelines.tables.token_store import token_store
from vgs_ray.config import Engine, Generator, Recipe, ReferencePolicy, Sampling
from vgs_ray.config.lengths import length_faults, longest_sequence
from vgs_ray.data.ids import roll_in_id, roll_out_id
from vgs_ray.data.schemas import LABELS
from vgs_ray.engines.interface import room_for
from vgs_ray.errors import UserError
from vgs_ray.labels.sampling_requests import roll_out_requests
from vgs_ray.value.training.loader import Examples

pytestmark = pytest.mark.usefixtures("local_ray")

SCALE = 64  # of the lengths of vgs: prompts of up to 16 tokens, responses of up to 256
PROBLEMS, ROLL_INS, CUTS = 24, 2, 2
TRAINED = (PROBLEMS - PROBLEMS // 6 - 1) * ROLL_INS * CUTS  # without validation and the one test problem


def written(prompt: int, max_tokens: int, engine: Engine) -> int:
    """Tokens of a response that never ends, as an engine writes it."""
    return room_for([0] * prompt, max_tokens, engine.max_model_len)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe().roll_in.generators])
def test_longest_sequence_that_generation_makes_fits(name: str) -> None:
    recipe = RECIPES[name]()
    assert list(length_faults(recipe)) == []
    found = set()
    for generator in recipe.roll_in.generators:
        engine = generator.engine or recipe.roll_in.engine
        for prompt in {1, 100, engine.max_model_len - recipe.roll_in.sampling.max_tokens, engine.max_model_len - 2}:
            size = written(prompt, recipe.roll_in.sampling.max_tokens, engine)
            if recipe.roll_out.whole:
                found.add(prompt + size)
            row = {"roll_in_id": f"p/a/{prompt}", "problem_id": "p", "prompt": [1] * prompt, "tokens": [2] * size}
            for request in roll_out_requests(row, recipe):
                added = room_for(request["prefix"], request["max_tokens"], recipe.roll_out.engine.max_model_len)
                assert added > 0
                found.add(len(request["prefix"]) + added)
    assert max(found) == longest_sequence(recipe)
    config = recipe.resolved_train
    assert config.max_length == longest_sequence(recipe)
    assert config.micro_tokens >= config.max_length


def test_published_lengths() -> None:
    assert vgs().resolved_train.max_length == 16_384 + 1_024


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--train.max-length 16384", r"train.max_length is 16384, .* up to 17408 tokens.* leave train.max_length at 0"),
        ("--train.max-length -1", r"train.max_length is -1"),
        ("--roll-out.sampling.max-tokens 4096", r"roll_in.sampling.max_tokens is 16384 and .* 4096"),
        ("--roll-in.generators.0.engine.max-model-len 32768", r"generator '1.5B' has max_model_len 32768 .* is 17408"),
        (
            "--roll-in.engine.max-model-len 32768",
            r"every generator .* has its own: set those, such as --roll-in.generators.0.engine",
        ),
        ("--evaluate.value-engine.max-model-len 16384", r"evaluate.value_engine.max_model_len is 16384"),
        ("--serve.policy-engine.max-model-len 32768", r"serve.value_engine.max_model_len is 17408, .* up to 32768"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(option: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse("pipelines.train", ["vgs", *option.split()])


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ("--train.max-length 17408", 17_408),
        ("--train.max-length 20000", 20_000),
        ("--roll-out.engine.max-model-len 32768", 32_768),
    ],
)
def test_the_remedies_work(options: str, longest: int) -> None:
    recipe = parse("pipelines.train", ["vgs", *options.split()])
    assert recipe.resolved_train.max_length == recipe.identity("train")["train.max_length"] == longest


def relabelled(tables: Path, folder: Path) -> Path:
    """The toy store with every third label incomplete and values."""
    given = sources(tables)
    sizes = {row["roll_out_id"]: len(row["tokens"]) for row in read_rows(given.roll_outs)}
    rows = read_rows(given.labels)
    for index, row in enumerate(rows):
        row["label"] = 2 if index % 3 == 0 else row["label"]
        row["values"] = (np.arange(sizes[row["roll_out_id"]]) / 100).tolist()
    pq.write_table(pa.Table.from_pylist(rows, schema=LABELS), folder / "part-0.parquet")
    build_store(given._replace(labels=[folder / "part-0.parquet"]), folder / "store")
    return folder / "store"


@pytest.mark.parametrize(
    "limit", [2, 5, 6, 18]
)  # within the prompt, at the end of a roll-in, one token on, in the middle
@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_too_long_is_cut_or_left_out(tables: Path, tmp_path: Path, limit: int, split: str) -> None:
    store = relabelled(tables, tmp_path)
    whole, outcome = Examples(store, split, "outcome", 64), Examples(store, split, "outcome", limit)
    longer = whole.lengths > limit
    assert not (whole.truncated | whole.left_out).any()
    assert outcome.truncated.tolist() == (longer & (whole.labels == 2)).tolist()
    assert outcome.left_out.tolist() == (longer & (whole.labels != 2)).tolist()
    assert outcome.units()[:, 0].tolist() == np.flatnonzero(~outcome.left_out).tolist()
    for index in outcome.units()[:, 0].tolist():
        short, long = outcome.example(index), whole.example(index)
        assert short.tokens.tolist() == long.tokens[:limit].tolist()
        assert (short.target_start, short.label) == (min(long.target_start, limit), long.label)
    values, whole_values = (Examples(store, split, "soft", length) for length in (limit, 64))
    assert values.truncated.tolist() == longer.tolist()
    for index in range(len(values)):
        short, long = values.example(index), whole_values.example(index)
        assert len(short.values) == len(short.tokens) - short.target_start
        assert short.values.tolist() == long.values[: len(short.values)].tolist()
    pairs = Examples(store, split, "bradley_terry", limit)
    if (~pairs.left_out).any() and limit == 18:
        assert not pairs.left_out[pairs.units()].any()


def test_all_classes_are_held_out(tables: Path, tmp_path: Path) -> None:
    store = relabelled(tables, tmp_path)
    examples = Examples(store, "validation", "outcome", 18)
    assert all(examples.counts(examples.held_out(1024)).values())
    assert load(tables, "validation", CONFIG).counts(np.arange(40))["incomplete"] == 0


@pytest.fixture(scope="module")
def scaled(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Recipe vgs with every length divided by `SCALE`, and tables as its stages would write them up to `label`."""
    base = vgs()
    engine = Engine(max_model_len=base.roll_out.engine.max_model_len // SCALE)
    sampling = Sampling(max_tokens=base.roll_out.sampling.max_tokens // SCALE)
    config = replace(
        base.train, init=backbone, steps=1, batch_size=TRAINED, workers=1, gpus_per_worker=0.0, cpus_per_worker=0.5, nodes=(),
        trackers=(), micro_tokens=1024, compile=False,
    )  # fmt: skip
    recipe = replace(
        base, root=str(tmp_path_factory.mktemp("runs")), cpu_nodes=(), train=config,
        roll_in=replace(base.roll_in, generators=(Generator("ref", "sandbox:ref"),), sampling=sampling, engine=engine),
        policy=ReferencePolicy("sandbox:ref"), roll_out=replace(base.roll_out, sampling=sampling, engine=engine),
    )  # fmt: skip
    inputs: tuple[str, ...] = ()
    for name, rows in tables_of(recipe).items():
        stage, parts = open_stage(recipe, name, inputs), stage_table(recipe, name)
        parts.write_part(pa.Table.from_pylist(rows, schema=parts.schema))
        stage.publish(parts, in_this_process)
        stage.close(rows=len(rows))
        inputs = (*inputs, name)
    return recipe


def tables_of(recipe: Recipe) -> dict[str, list[dict[str, object]]]:
    """Roll-outs that end with either outcome, half of them at the last moment, and of each roll-in one that does not end."""
    draw, limit = np.random.default_rng(0), recipe.roll_out.sampling.max_tokens
    rows: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("clean", "roll_in", "roll_out", "verify", "label")
    }
    known = {"seed": 0, "policy": "a", "sampling": "{}", "engine": "none"}
    for index in range(PROBLEMS):
        problem, split = f"p{index:02}", "validation" if index % 6 == 0 else "test" if index == 1 else "train"
        rows["clean"].append({"problem_id": problem, "problem": problem, "answer": "1", "split": split})
        prompt = int(
            draw.integers(8, 17)
        )  # a response that reaches its limit is longer than 256 tokens with any prompt
        for number in range(ROLL_INS):
            name, size = roll_in_id(problem, "a", number), int(draw.integers(20, limit))
            rows["roll_in"].append(
                {**known, "roll_in_id": name, "problem_id": problem, "prompt": [1] * prompt, "tokens": [2] * size,
                 "finish_reason": "stop"}
            )  # fmt: skip
            for place in range(CUTS):
                cut = int(draw.integers(0, size))
                ids = {"roll_out_id": roll_out_id(name, place), "roll_in_id": name, "problem_id": problem}
                label = 2 if place == 0 else index % 2
                added = limit - cut - (label != 2) if number == 0 or label == 2 else int(draw.integers(1, limit - cut))
                rows["roll_out"].append(
                    {**known, **ids, "cut": cut, "tokens": [3 + label] * added, "finish_reason": "length"}
                )
                rows["verify"].append({**ids, "outcome": "incomplete", "reason": "made_up"})
                rows["label"].append({**ids, "cut": cut, "split": split, "label": label})
    return rows


def labels_by_class(recipe: Recipe, split: str) -> Counter[int]:
    labels = stage_table(recipe, "label").read(["split", "label"]).to_pylist()
    return Counter(row["label"] for row in labels if row["split"] == split)


def test_stage_trains_on_every_class_at_the_lengths_of_vgs(scaled: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(scaled)
    counts = json.loads((scaled.folder / "train" / "_stage.json").read_text())["counts"]
    wanted = labels_by_class(scaled, "train")
    assert list(counts["classes"].values()) == [wanted[0], wanted[1], wanted[2]]
    assert counts["classes"]["incomplete"] == TRAINED // CUTS
    assert counts["too_long"] == {"cut": 0, "left_out": 0}
    printed = capsys.readouterr().out
    assert f"classes: incorrect {wanted[0]}, correct {wanted[1]}, incomplete {wanted[2]}" in printed
    assert "warning" not in printed
    # The one batch has every sequence once: all of their tokens are forwarded, to the last one.
    roll_ins = {row["roll_in_id"]: len(row["prompt"]) for row in stage_table(scaled, "roll_in").read().to_pylist()}
    outs = {row["roll_out_id"]: row for row in stage_table(scaled, "roll_out").read().to_pylist()}
    sizes = [
        roll_ins[row["roll_in_id"]] + row["cut"] + len(outs[row["roll_out_id"]]["tokens"])
        for row in stage_table(scaled, "label").read().to_pylist() if row["split"] == "train"
    ]  # fmt: skip
    assert (len(sizes), sum(sizes)) == (TRAINED, counts["tokens"])
    assert max(sizes) > 16_384 // SCALE  # what used to be left out
    card = (scaled.folder / "train" / "value_model" / "README.md").read_text()
    held = labels_by_class(scaled, "validation")
    assert f"| validation | {held.total()} | {held[0]} | {held[1]} | {held[2]} |" in card


def test_imported_rows_that_are_too_long_are_counted(scaled: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    """The limit of the published code, 16,384 tokens with the prompt, on rows that are longer."""
    short = replace(scaled, roll_out=replace(scaled.roll_out, engine=Engine(max_model_len=16_384 // SCALE)))
    data = train.prepare(short, token_store(short))
    wanted = labels_by_class(scaled, "train")
    assert data.classes["incomplete"] == wanted[2]  # cut, none lost
    both = labels_by_class(scaled, "train") + labels_by_class(scaled, "validation")
    assert data.too_long["cut"] == both[2]
    left_out = TRAINED - sum(data.classes.values())
    assert 0 < left_out <= data.too_long["left_out"]
    line = f"are longer than train.max_length=256 tokens: {both[2]} are truncated, {data.too_long['left_out']} are left out"
    assert capsys.readouterr().out.count(line) == 1
