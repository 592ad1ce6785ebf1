"""Names and folders that are no usable model: each ends in one line before anything starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from made_up_run import write_run

from pipelines.recipes import sandbox, svpo
from pipelines.tables.stage import open_stage
from vgs_ray.config import Generator, Label, ReferencePolicy
from vgs_ray.errors import UserError
from vgs_ray.models import OWN_HEAD
from vgs_ray.models.checks import check_models
from vgs_ray.sandbox import policy_path


def model_folder(folder: Path, *left_out: str) -> str:
    """The shipped policy without some of its files."""
    folder.mkdir()
    for file in policy_path("ref").iterdir():
        if file.name not in left_out:
            (folder / file.name).symlink_to(file)
    return str(folder)


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        (["config.json"], "has no config.json"),
        (["model.safetensors"], "a folder without weights"),
        (["tokenizer.json", "tokenizer_config.json"], "a folder without a tokenizer"),
        (["chat_template.jinja"], "no chat template"),
    ],
)
def test_a_folder_that_is_no_model_is_named(left_out: list[str], named: str, tmp_path: Path) -> None:
    recipe = replace(sandbox(), policy=ReferencePolicy(model_folder(tmp_path / "model", *left_out)))
    with pytest.raises(UserError, match=rf"policy\.model is '.*{named}.*--policy\.model"):
        check_models(recipe, "roll_out")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("/nowhere/model", "which is not a folder"),
        ("./nowhere", "which is not a folder"),
        ("sandbox:large", "unknown sandbox policy 'large'"),
        ("package:gpt", "package 'gpt' is not known to contain"),
        ("no such/id", "neither an existing folder nor a Hugging Face id"),
    ],
)
def test_a_name_that_is_no_model_is_named(model: str, named: str, tmp_path: Path) -> None:
    recipes = {
        "roll_in": replace(sandbox(), roll_in=replace(sandbox().roll_in, generators=(Generator("a", model),))),
        "verify": replace(sandbox(), policy=ReferencePolicy(model)),
        "train": replace(sandbox(), train=replace(sandbox().train, init=model)),
        "evaluate": replace(sandbox(), evaluate=replace(sandbox().evaluate, value_model=model)),
        "serve": replace(sandbox(), serve=replace(sandbox().serve, value_model=model)),
    }
    for stage, recipe in recipes.items():
        with pytest.raises(UserError, match=named):
            check_models(recipe, stage)


def test_a_policy_without_a_value_head_is_named(tmp_path: Path) -> None:
    headless = model_folder(tmp_path / "headless")
    recipe = replace(svpo(), root=str(tmp_path))
    named = {
        "trees": replace(recipe, policy=ReferencePolicy(headless), trees=replace(recipe.trees, value_model=OWN_HEAD)),
        "evaluate": replace(recipe, evaluate=replace(recipe.evaluate, policy=headless)),
        "serve": replace(sandbox(), serve=replace(sandbox().serve, value_model=OWN_HEAD)),
    }
    for stage, wrong in named.items():
        option = rf"--{stage}\.value-model"
        with pytest.raises(UserError, match=rf"which has no value head \(value_head/model\.safetensors\).*{option}"):
            check_models(wrong, stage)
    check_models(recipe, "evaluate")  # stage tune has not written the model yet
    with pytest.raises(UserError, match=r"run python -m pipelines\.tune svpo first"):
        check_models(recipe, "serve")
    (Path(headless) / "value_head").mkdir()
    (Path(headless) / "value_head" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"is damaged.*--evaluate\.value-model"):
        check_models(named["evaluate"], "evaluate")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A hub that refuses with the status and the code that it is told."""
    answer: dict[str, Any] = {}

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(answer["status"])
            self.send_header("X-Error-Code", answer["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "named"),
    [
        (401, "RepoNotFound", "does not exist on Hugging Face"),
        (403, "GatedRepo", "is gated"),
        (404, "EntryNotFound", "has no config.json"),
        (403, "", "can't be looked up"),
    ],
)
def test_a_hub_that_refuses_is_told_apart(hub: dict[str, Any], status: int, code: str, named: str) -> None:
    hub |= {"status": status, "code": code}
    with pytest.raises(UserError, match=f"'org/model', which .*{named}"):
        check_models(replace(sandbox(), policy=ReferencePolicy("org/model")), "roll_out")


def test_a_wrong_model_leaves_nothing_that_stops_the_right_one(tmp_path: Path) -> None:
    recipe = replace(write_run(tmp_path, Label()), run_name="sandbox")
    wrong = replace(recipe, train=replace(recipe.train, init="/nowhere/model"))
    for stage, inputs in (("clean", ()), ("label", ("clean", "roll_in", "roll_out", "verify"))):
        assert (open_stage(recipe, stage, inputs) is None) == (stage == "clean")
    with pytest.raises(UserError, match=r"train\.init is '/nowhere/model'"):
        open_stage(wrong, "train", ("roll_in", "roll_out"))
    assert open_stage(recipe, "train", ("roll_in", "roll_out"))
