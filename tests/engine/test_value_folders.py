"""Folders of value models: saved by older releases, pickled, sharded, incomplete, damaged."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY_ENGINE

from pipelines.recipes import sandbox
from vgs_ray.errors import UserError
from vgs_ray.models.checks import value_model
from vgs_ray.models.folder import INDEX, WEIGHTS, check_value_folder
from vgs_ray.value.model import ValueModel

TOKENS = tuple(range(2, 42))
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(value_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(value_folder, tmp_path / "it's a model")


def probs(folder: Path) -> torch.Tensor:
    return ValueModel.from_pretrained(folder).success_probs(torch.tensor([TOKENS]))[0]


def add(folder: Path, *names: str) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {name: torch.full((16,), 7.0) for name in names}, folder / WEIGHTS)


def pickled(folder: Path, *groups: str) -> None:
    """Convert the safetensors to pytorch_model.bin, or to a shard for each group of names."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    for at, group in enumerate(groups, 1):
        part = {name: tensor for name, tensor in weights.items() if name.startswith(group)}
        name = "pytorch_model.bin" if len(groups) == 1 else f"pytorch_model-{at:05}-of-{len(groups):05}.bin"
        torch.save(part, folder / name)


def sharded(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: SHARDS[name.startswith("score.")] for name in weights}
    for shard in SHARDS:
        save_file({name: weights[name] for name, place in places.items() if place == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_buffers_that_older_releases_saved_are_computed_by_both_loaders(folder: Path, value_folder: Path) -> None:
    from vgs_ray.engines import build_value

    rotary = [f"model.layers.{layer}.self_attn.rotary_emb" for layer in range(2)] + ["model.rotary_emb"]
    kinds = ("inv_freq", "original_inv_freq", "cos_cached", "sin_cached")
    add(folder, *(f"{module}.{kind}" for module in rotary for kind in kinds))
    expected = probs(value_folder)
    assert torch.equal(probs(folder), expected)
    engine = build_value(str(folder), TINY_ENGINE)
    try:
        assert asyncio.run(engine.score(TOKENS)).value == pytest.approx(expected[-1].item(), abs=1e-4)
    finally:
        engine.close()


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.masked_bias", "model.position_ids", "inv_freq", "lm_head.weight"]
)
def test_an_unknown_tensor_is_named(folder: Path, name: str) -> None:
    add(folder, name)
    with pytest.raises(ValueError, match=rf"{name} is not part of a value model"):
        probs(folder)


@pytest.mark.parametrize("groups", [("",), ("model.", "score.")], ids=["one file", "shards"])
def test_pickles_are_refused_with_a_command_that_converts_them(
    folder: Path, value_folder: Path, groups: tuple[str, ...]
) -> None:
    pickled(folder, *groups)
    with pytest.raises(ValueError, match="convert them with python -m") as refused:
        probs(folder)
    command = str(refused.value).partition("convert them with python")[2]
    done = subprocess.run(f"{sys.executable}{command}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(probs(folder), probs(value_folder))
    again = subprocess.run(f"{sys.executable}{command}", shell=True, capture_output=True, text=True, check=False)
    assert (again.returncode, "safetensors already" in again.stderr) == (2, True)


class Trap:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("trapped", "w")


@pytest.mark.parametrize("what", [{"score.0.weight": Trap()}, {"epoch": 3}, {"state_dict": {}}, [1]])
def test_a_pickle_of_more_than_tensors_is_not_converted(
    folder: Path, what: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgs_ray.value.convert import convert

    monkeypatch.chdir(folder)
    (folder / WEIGHTS).unlink()
    torch.save(what, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"can't be read as plain tensors|more than named tensors"):
        convert(folder)
    assert not (folder / "trapped").exists()
    assert not (folder / WEIGHTS).exists()


def test_shards_are_read(folder: Path, value_folder: Path) -> None:
    sharded(folder)
    check_value_folder(folder)
    assert torch.equal(probs(folder), probs(value_folder))


def cut(file: Path, keep: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / SHARDS[1]).unlink()


def index(folder: Path, text: str) -> None:
    sharded(folder)
    (folder / INDEX).write_text(text)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (emptied, "config.json"),
    "no config": (without_config, "config.json"),
    "broken config": (lambda folder: cut(folder / "config.json", 0.5), "config.json is not JSON"),
    "config of no model": (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
    "no weights": (without_weights, "has no weights"),
    "half a file": (lambda folder: cut(folder / WEIGHTS, 0.5), "model.safetensors is damaged"),
    "half a header": (lambda folder: cut(folder / WEIGHTS, 0.001), "model.safetensors is damaged"),
    "no bytes": (lambda folder: cut(folder / WEIGHTS, 0), "model.safetensors is damaged"),
    "a page of a proxy": (lambda folder: (folder / WEIGHTS).write_text("<html>" * 99), "model.safetensors is damaged"),
    "no shard": (without_a_shard, f"lacks 1 of the 2 files that {INDEX} names \\({SHARDS[1]}"),
    "half a shard": (lambda folder: (sharded(folder), cut(folder / SHARDS[0], 0.9)), f"{SHARDS[0]} is damaged"),
    "broken index": (lambda folder: index(folder, "{"), "index.json is not JSON"),
    "index of nothing": (lambda folder: index(folder, "{}"), "has no weight_map"),
    "index of a list": (lambda folder: index(folder, "[]"), "contains a list"),
    "shard elsewhere": (lambda folder: index(folder, '{"weight_map": {"a": "../b"}}'), "names '../b'"),
    "pickles": (lambda folder: pickled(folder, ""), r"python -m vgs_ray\.value\.convert '"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_incomplete_folder_is_refused_before_an_engine_starts(folder: Path, damage: str) -> None:
    damage_folder, message = DAMAGES[damage]
    damage_folder(folder)
    with pytest.raises(ValueError, match=message):
        ValueModel.from_pretrained(folder)
    recipe = replace(sandbox(), root=str(folder.parent))
    with pytest.raises(UserError, match=message):
        value_model(recipe, str(folder))


def test_a_path_that_is_not_a_folder_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    for load in (ValueModel.from_pretrained, ValueModel.from_backbone):
        with pytest.raises(ValueError, match="is not a folder"):
            load(tmp_path / "nobody")
