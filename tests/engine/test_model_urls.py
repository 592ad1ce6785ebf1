"""Models at a URL: the same tokens, values and digest as their folder, one copy per machine, clear errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_ENGINE
from upath import UPath

from pipelines.plan import config_of
from pipelines.recipes import sandbox
from vgs_ray.config import Recipe, Sampling
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.files import upload_folder
from vgs_ray.data.storage import list_files
from vgs_ray.errors import UserError
from vgs_ray.models import content, copies
from vgs_ray.models.checks import check_models, evaluated_policy, value_model
from vgs_ray.models.content import content_of
from vgs_ray.models.copies import cached_copy
from vgs_ray.models.folder import local_folder
from vgs_ray.prompts import load_tokenizer
from vgs_ray.sandbox import policy_path
from vgs_ray.search.flops import model_sizes
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel

IDS = torch.arange(2, 100)[None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vgs_ray" / "models"


def uploaded(folder: str | Path, root: UPath, name: str = "model") -> str:
    upload_folder(Path(folder), root / name)
    return str(root / name)


def copies_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


async def test_vllm_gives_the_tokens_and_values_of_the_folder(
    policy: Any, value: Any, policy_folder: Path, value_folder: Path, s3_root: UPath
) -> None:
    from vgs_ray.engines import build_engines

    urls = uploaded(policy_folder, s3_root, "policy"), uploaded(value_folder, s3_root, "value")
    engines = build_engines(*urls, TINY_ENGINE, TINY_ENGINE)
    try:
        sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=16)
        prefix = tuple(range(5, 25))
        assert await engines.policy.extend(prefix, sampling, 7) == await policy.extend(prefix, sampling, 7)
        assert await engines.value.score(prefix) == await value.score(prefix)
    finally:
        engines.close()


def test_transformers_gives_the_values_of_the_folder(value_folder: Path, headed_policy: str, s3_root: UPath) -> None:
    url = uploaded(value_folder, s3_root)
    assert (
        ValueModel.from_pretrained(url)
        .success_probs(IDS)
        .equal(ValueModel.from_pretrained(value_folder).success_probs(IDS))
    )
    headed = uploaded(headed_policy, s3_root, "headed")
    assert (
        PolicyValueModel.from_pretrained(headed)
        .values(IDS)
        .equal(PolicyValueModel.from_pretrained(headed_policy).values(IDS))
    )


@pytest.mark.parametrize("small", [0, 10**9])
def test_digest_is_that_of_the_folder(
    headed_policy: str, s3_root: UPath, tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "SMALL_BYTES", small)
    folder = shutil.copytree(headed_policy, tmp_path / "other")
    (folder / "pytorch_model.bin").write_bytes(os.urandom(10_000))  # sampled evenly
    digest = content_of(str(folder))
    assert digest.startswith("content:")
    assert content_of(uploaded(folder, s3_root)) == digest
    (folder / "value_head" / "config.json").write_text("{}")
    assert content_of(uploaded(folder, s3_root, "changed")) == content_of(str(folder)) != digest


def test_digest_downloads_no_weights(value_folder: Path, s3_root: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    url, read = uploaded(value_folder, s3_root), list[int]()

    def counted(file: Any, ranges: Any, original: Any = content.read_ranges) -> list[bytes]:
        pieces = original(file, ranges)
        read.append(sum(map(len, pieces)))
        return pieces

    monkeypatch.setattr(content, "SMALL_BYTES", 10_000)
    monkeypatch.setattr(content, "SAMPLE_BYTES", 64)
    monkeypatch.setattr(content, "read_ranges", counted)
    content_of(url)
    assert sum(read) < (value_folder / "model.safetensors").stat().st_size / 10


def test_a_changed_model_is_fetched_again(value_folder: Path, s3_root: UPath, cache: Path, tmp_path: Path) -> None:
    url = uploaded(value_folder, s3_root)
    first = local_folder(url)
    marker = first / "README.md"
    marker.write_text("not fetched again")
    assert local_folder(url) == first
    assert marker.exists()
    folder = shutil.copytree(value_folder, tmp_path / "other")
    ValueModel.from_backbone(value_folder, seed=9).save_pretrained(folder)
    uploaded(folder, s3_root)
    second = local_folder(url)
    assert second != first
    assert {name: (second / name).read_bytes() for name in list_files(second)} == {
        name: (folder / name).read_bytes() for name in list_files(folder)
    }
    assert len(copies_in(cache)) == 2


def test_a_model_that_changes_during_the_download_is_never_used(
    value_folder: Path, s3_root: UPath, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, downloads = uploaded(value_folder, s3_root), []

    def changing(source: UPath, target: Path, names: Any, original: Any = copies.download_folder) -> None:
        original(source, target, names)
        downloads.append(target)
        if len(downloads) < 3:
            (source / "config.json").write_text((source / "config.json").read_text() + " ")

    monkeypatch.setattr(copies, "download_folder", changing)
    folder = local_folder(url)
    assert len(downloads) == 3
    assert (folder / "config.json").read_text() == (s3_root / "model" / "config.json").read_text()
    assert copies_in(cache) == [folder.name]


FETCH = "import sys; from vgs_ray.models.folder import local_folder; print(local_folder(sys.argv[1]))"


def test_several_processes_make_one_copy(headed_policy: str, s3_root: UPath, cache: Path) -> None:
    url = uploaded(headed_policy, s3_root)
    running = [
        subprocess.Popen([sys.executable, "-c", FETCH, url], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    found = {process.communicate(timeout=120)[0].strip() for process in running}
    [copy] = found
    assert content_of(copy) == content_of(url)
    assert copies_in(cache) == [Path(copy).name]


def test_what_a_killed_download_left_is_removed(value_folder: Path, s3_root: UPath, cache: Path) -> None:
    url = uploaded(value_folder, s3_root)
    folder = local_folder(url)
    left = folder.rename(cache / f".{folder.name}.0123.tmp")
    (left / "config.json").unlink()
    assert content_of(str(local_folder(url))) == content_of(url)
    assert not left.exists()


def test_tokenizer_and_sizes_need_no_weights(s3_root: UPath, cache: Path) -> None:
    url = uploaded(policy_path("ref"), s3_root)
    assert load_tokenizer(url).get_vocab() == load_tokenizer(str(policy_path("ref"))).get_vocab()
    assert model_sizes(url, "random") == model_sizes("sandbox:ref", "random")
    assert config_of(url) == config_of("sandbox:ref")
    assert not [path for path in cache.rglob("*") if path.suffix == ".safetensors"]


def test_checkpoints_below_a_model_are_not_copied(value_folder: Path, s3_root: UPath, tmp_path: Path) -> None:
    folder = shutil.copytree(value_folder, tmp_path / "other")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"large")
    assert "checkpoint-10" not in os.listdir(local_folder(uploaded(folder, s3_root)))


def with_policy(model: str) -> Recipe:
    base = sandbox()
    return replace(base, policy=replace(base.policy, model=model))


def refused(recipe: Recipe, stage: str = "roll_out") -> str:
    check_recipe(recipe)
    with pytest.raises(UserError) as raised:
        check_models(recipe, stage)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_and_damaged_models_get_one_line(s3_root: UPath, tmp_path: Path) -> None:
    folder = shutil.copytree(policy_path("ref"), tmp_path / "policy")
    good = with_policy(uploaded(folder, s3_root, "good"))
    check_models(good, "roll_out")
    assert f"policy.model is '{s3_root}/none'" in refused(with_policy(f"{s3_root}/none"))
    assert "NoSuchBucket" in refused(with_policy("s3://no-such-bucket/model"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    assert "model.safetensors is damaged" in refused(with_policy(uploaded(folder, s3_root, "cut")))
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "is damaged" in refused(with_policy(uploaded(folder, s3_root, "garbage")))
    (folder / "model.safetensors").unlink()
    assert "without weights" in refused(with_policy(uploaded(folder, s3_root, "empty")))
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "without a tokenizer" in refused(with_policy(uploaded(folder, s3_root, "wordless")))


def test_value_models_are_found_and_refused(value_folder: Path, s3_root: UPath) -> None:
    url = uploaded(value_folder, s3_root)
    assert value_model(sandbox(), url) == url
    (s3_root / "model" / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        value_model(sandbox(), url)
    own = replace(sandbox(), root=str(s3_root))
    with pytest.raises(UserError, match=r"run python -m pipelines\.train sandbox first"):
        value_model(own)
    upload_folder(value_folder, s3_root / "sandbox" / "train" / "value_model")
    assert value_model(own) == f"{s3_root}/sandbox/train/value_model"
    tuned = replace(own, stages=("clean", "trees", "pairs", "tune", "evaluate"))
    assert evaluated_policy(tuned) == f"{s3_root}/sandbox/tune/model"


def test_own_value_head_is_checked(headed_policy: str, s3_root: UPath) -> None:
    def headed(url: str) -> Recipe:
        base = with_policy(url)
        return replace(base, evaluate=replace(base.evaluate, value_model="policy"))

    check_models(headed(uploaded(headed_policy, s3_root)), "evaluate")
    assert "has no value head" in refused(headed(uploaded(policy_path("ref"), s3_root, "plain")), "evaluate")


def test_an_empty_folder_has_no_copy(s3_root: UPath) -> None:
    with pytest.raises(ValueError, match="has no files"):
        cached_copy(s3_root / "none")
