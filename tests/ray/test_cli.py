"""The command line: recipes, options, help texts, and one clear line for an error that the user can fix."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines
from pipelines import clean, evaluate
from pipelines.cli import FIELDS, RUN_FIELDS, cli, parse
from pipelines.recipes import RECIPES
from vgs_ray.config import STAGES, Recipe
from vgs_ray.config.options import options_of
from vgs_ray.errors import UserError


def error_of(run: Callable[[Recipe], None], command: str, *arguments: str) -> str:
    """What the command prints to standard error before it ends with code 2."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(printed):
        patch.setattr(sys, "argv", [command, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli(run, command)
    assert stop.value.code == 2
    return printed.getvalue()


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
        (["sandbocks"], ["'sandbocks'", "sandbox, sandbox_controls, sandbox_methods, sandbox_shared, "]),
        (["sandbox", "--train.lr", "quick"], ["--train.lr", "'quick'", "--help"]),
        (["sandbox", "--train.stepz", "5"], ["--train.stepz", "did you mean --train.steps?", "--help"]),
        (["sandbox", "--steps=5"], ["did you mean --train.steps?"]),
        (
            ["sandbox", "--value_engine.threads", "5"],
            [f"--{name}.value-engine.threads" for name in ("evaluate", "serve")],
        ),
        (["sandbox", "--solve.zzz", "5"], ["--solve.zzz does not exist;"]),
        (["sandbox", "50"], ["unexpected argument '50'"]),
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
        (["--clean.source", "{folder}/broken.parquet"], ["broken.parquet", "cannot be read"]),
        (["--clean.source", "{folder}/other.jsonl"], ["other.jsonl", "no column problem, answer", "found: question"]),
        (["--root", "/proc/none"], ["/proc/none", "--root"]),
    ],
)
def test_bad_input_stops_clean_with_one_line(arguments: list[str], named: list[str], tmp_path, local_ray) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not a table")
    (tmp_path / "other.jsonl").write_text('{"question": "1+1?"}\n')
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    printed = error_of(clean.run, "pipelines.clean", "sandbox", "--root", str(tmp_path / "runs"), *filled)
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, printed
    for part in named:
        assert part in errors[0]
    assert not list(tmp_path.glob("runs/**/*.parquet*")), "nothing half-written"


def test_missing_stage_is_named_with_its_command(tmp_path) -> None:
    command = [sys.executable, "-m", "pipelines.roll_out", "sandbox", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "python -m pipelines.roll_in sandbox" in done.stderr
    assert "Traceback" not in done.stderr


def shown(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(f"pipelines.{command}", list(arguments))
    assert not stop.value.code
    return capsys.readouterr().out


def fields_in(text: str) -> set[str]:
    """Names of the options in a help text: those of plain fields, and the last parts of nested ones."""
    return set(re.findall(r"^  (--[\w.-]+|\.[\w-]+)  ", text, re.MULTILINE))


def test_every_command_is_known_to_help() -> None:
    modules = Path(pipelines.__file__).parent.glob("*.py")
    assert {path.stem for path in modules if re.search(r"^    cli\(", path.read_text(), re.MULTILINE)} == set(FIELDS)


@pytest.mark.parametrize("columns", [100, 120])
@pytest.mark.parametrize("command", FIELDS)
def test_help_is_short_and_holds_what_the_command_reads(command: str, columns: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, recipe in RECIPES.items():
        text = shown(capsys, command, name, "--help")
        lines = text.splitlines()
        assert len(lines) < 100
        assert max(map(len, lines)) <= columns
        assert all(any(each.is_in(path) for each in options_of(recipe())) for path in FIELDS[command])
        read = [each for each in options_of(recipe()) if any(map(each.is_in, (*RUN_FIELDS, *FIELDS[command])))]
        outside_lists = [each.path for each in read if not any(part.isdigit() for part in each.path)]
        plain = {f"--{'.'.join(path).replace('_', '-')}" for path in outside_lists if len(path) <= 2}
        nested = {f".{path[-1].replace('_', '-')}" for path in outside_lists if len(path) > 2}
        assert plain | nested <= fields_in(text)
        assert {each for each in fields_in(text) if each.startswith("--")} <= plain


def test_help_has_meaning_range_and_default(capsys) -> None:
    text = " ".join(shown(capsys, "train", "sandbox", "--help").split())
    assert "--train.steps Number of optimizer steps; 0 takes as many as `epochs` needs [>= 0; default 560]" in text
    assert "[>= 1 and <= 65535; default 8000]" in shown(capsys, "serve", "sandbox", "-h")


@pytest.mark.parametrize("name", RECIPES)
def test_help_all_holds_every_field(name: str, capsys) -> None:
    fields = fields_in(shown(capsys, "label", name, "--help-all"))
    for option in options_of(RECIPES[name]()):
        assert option.name in fields or f".{option.path[-1].replace('_', '-')}" in fields, option.name


def test_usage_lists_the_recipes(capsys) -> None:
    text = shown(capsys, "train", "--help")
    assert all(re.search(rf"^  {name}  +\w", text, re.MULTILINE) for name in RECIPES)


def test_flags_of_a_command_are_options_too(capsys, monkeypatch, tmp_path) -> None:
    given = []

    def note(recipe: Recipe, flags: evaluate.Flags) -> None:
        given.append((recipe.train.steps, flags.from_trees))

    for options in (["--from-trees", "--train.steps", "3"], ["--root", str(tmp_path)], ["--help"]):
        monkeypatch.setattr(sys, "argv", ["evaluate", "sandbox", "--root", str(tmp_path), *options])
        with pytest.raises(SystemExit) if "--help" in options else contextlib.nullcontext():
            cli(note, "pipelines.evaluate", flags=evaluate.Flags())
    assert given == [(3, True), (560, False)]
    assert "--from-trees" in capsys.readouterr().out


def test_paths_of_models_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of Ray Train have another one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "policy").mkdir(parents=True)
    named = parse("pipelines.run", ["sandbox", "--train.init", "runs/policy"])
    assert named.train.init == str(tmp_path / "runs" / "policy")
    asked = [
        "sandbox",
        "--train.init",
        "./model",
        "--roll-in.generators.0.model",
        "../other",
        "--policy.model",
        "me/model",
    ]
    recipe = parse("pipelines.run", [*asked, "--roll-in.generators.1.model", "s3://bucket/model"])
    assert recipe.train.init == str(tmp_path / "model")
    assert Path(recipe.roll_in.generators[0].model).resolve() == (tmp_path.parent / "other").resolve()
    assert (recipe.policy.model, recipe.roll_in.generators[1].model) == ("me/model", "s3://bucket/model")
    assert recipe.evaluate.value_model == ""


def test_help_may_be_cut_off_by_its_reader() -> None:
    command = f"set -o pipefail; {sys.executable} -m pipelines.evaluate sandbox --help-all | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m pipelines.evaluate sandbox")
