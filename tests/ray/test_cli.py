"""The command line: recipes, overrides, and one clear line for what a person can mend."""

import json
import subprocess
import sys

import pytest

from pipelines.cli import parse
from pipelines.recipes import RECIPES
from vgs_ray.config import STAGES
from vgs_ray.errors import UserError


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete_and_plain(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert recipe.folder.name == name
    for stage in STAGES:
        assert recipe.identity(stage) == json.loads(json.dumps(recipe.identity(stage)))


def test_overrides_reach_nested_fields() -> None:
    recipe = parse(
        "pipelines.train", ["sandbox", "--train.steps", "7", "--roll_in.sampling.top-p", "0.5", "--run-name", "x"]
    )
    assert (recipe.train.steps, recipe.roll_in.sampling.top_p, recipe.folder.name) == (7, 0.5, "x")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sandbocks"], ["'sandbocks'", "sandbox, sandbox_methods, smollm, vgs"]),
        (["sandbox", "--train.lr", "quick"], ["--train.lr", "'quick'", "--help"]),
        (["sandbox", "--train.stepz", "5"], ["--train.stepz", "--help"]),
    ],
)
def test_bad_arguments_get_one_line_that_names_value_and_remedy(arguments: list[str], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse("pipelines.train", arguments)
    text = str(error.value)
    assert "\n" not in text
    for part in named:
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--clean.source", "nowhere.parquet"], ["nowhere.parquet", "does not exist", "check the path"]),
        (["--clean.source", "{folder}/broken.parquet"], ["broken.parquet", "can't be read"]),
        (["--clean.source", "{folder}/other.jsonl"], ["other.jsonl", "no column problem, answer", "found: question"]),
        (["--root", "/proc/none"], ["/proc/none", "--root"]),
    ],
)
def test_bad_input_stops_clean_with_one_line(arguments: list[str], named: list[str], tmp_path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not a table")
    (tmp_path / "other.jsonl").write_text('{"question": "1+1?"}\n')
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    done = run_command("pipelines.clean", "sandbox", "--root", str(tmp_path / "runs"), *filled)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in named:
        assert part in errors[0]
    assert not list(tmp_path.glob("runs/**/part-*")), "nothing half-written"


def test_missing_stage_is_named_with_its_command(tmp_path) -> None:
    done = run_command("pipelines.roll_out", "sandbox", "--root", str(tmp_path))
    assert done.returncode == 2
    assert "python -m pipelines.roll_in sandbox" in done.stderr


def test_help_lists_every_field_with_its_meaning() -> None:
    done = run_command("pipelines.train", "sandbox", "--help")
    assert done.returncode == 0
    assert "--train.micro-tokens" in done.stdout
    assert "Tokens in one forward pass" in done.stdout
