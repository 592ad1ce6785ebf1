"""README.md, CONTRIBUTING.md and docs/: every command is parsed by the program that it names, and every name exists.

Requests to an endpoint (curl, the openai client, pipelines.ask) are run in tests/serve/test_examples.py.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
from documents import DOCUMENTS, ROOT, commands, snippets

from pipelines import plan, submit
from pipelines.cli import parse
from vgs_ray.config import STAGES, Recipe

COMMANDS = commands()
PLACEHOLDERS = {"STAGE": "label", "RECIPE": "sandbox", "...": ""}
PYTHON_TYPES = {"int": int, "float": float, "str": str, "Path": Path}
REPLY = ("warnings", "probability", "abstained", "answer")
OBJECTS = ("vgs_ray.start", "vgs_ray.node", *(f"vgs_ray.{field}" for field in REPLY))  # of the protocol
SECTION = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood_by_its_program(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    for variable in [word for word in words if re.match(r"[A-Z_]+=", word)]:
        monkeypatch.setenv(*variable.split("=", 1))
    words = [word for word in words if word and not re.match(r"[A-Z_]+=", word)]
    match words:
        case ["python", "-m", "pipelines.ask", *_] | ["curl", *_]:
            pass  # tests/serve/test_examples.py runs it
        case ["python", "-m", module, *arguments] if module.startswith("pipelines."):
            check_stage(module, arguments)
        case ["python", "-m", module, *_] | ["python3.11", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["python", script, *arguments]:
            bench_parser(ROOT / script).parse_args(arguments)
        case ["jobs/submit.sh", *arguments]:
            assert submit.main([*arguments, submit.DRY_RUN]) == 0
        case ["jobs/paper.sh", *arguments]:
            assert submit.main(["run", "vgs", *arguments, submit.DRY_RUN]) == 0
        case ["make", *arguments]:
            subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
        case ["ray" | "serve" | "hf" as program, *arguments]:
            check_click(program, arguments)
        case ["docker" | "helm" | "kubectl", *arguments]:
            assert [
                file for option, file in pairwise(arguments) if option == "-f" and not (ROOT / file).is_file()
            ] == []
        case ["pip", "install", *arguments]:
            check_pip(arguments)
        case ["export", *_]:
            check_variables(re.findall(r"([A-Z_]+)=", command))
        case ["source", ".venv/bin/activate"]:
            pass
        case ["pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").is_file()
        case _:
            pytest.fail(f"{COMMANDS[command]}: no rule covers this command: {command}")


def check_stage(module: str, arguments: list[str]) -> None:
    """Parse the arguments; show help and plans, which is all that runs in a moment."""
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    assert "__main__" in source
    if {"--help", "--help-all"} & {*arguments}:
        with pytest.raises(SystemExit, match="0"):
            parse(module, arguments)
    elif arguments:
        flags = getattr(importlib.import_module(module), "Flags", None)
        recipe = parse(module, arguments, flags() if flags else None)
        if module == "pipelines.plan":
            plan.run(recipe, plan.Flags())


def bench_parser(script: Path) -> argparse.ArgumentParser:
    """The script's own options, without its imports."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [ast.literal_eval(argument) for argument in node.args]
            options = {
                item.arg: item.value for item in node.keywords if item.arg in ("type", "nargs", "action", "choices")
            }
            values: dict[str, Any] = {
                name: PYTHON_TYPES.get(value.id) if isinstance(value, ast.Name) else ast.literal_eval(value)
                for name, value in options.items()
                if name
            }
            parser.add_argument(*names, **values)
    return parser


def check_click(program: str, arguments: list[str]) -> None:
    """The command exists and accepts its arguments; one that is only named has none."""
    command: click.Command = click_command(program)
    while isinstance(command, click.Group) and arguments:
        found = command.get_command(click.Context(command), arguments[0])
        assert found, f"{program} has no command {arguments[0]}"
        command, arguments = getattr(found, "materialize", lambda found=found: found)(), arguments[1:]
    if arguments:
        command.make_context(program, list(arguments))
        assert [word for word in arguments if word.endswith(".yaml") and not (ROOT / word).is_file()] == []


def click_command(program: str) -> click.Command:
    if program == "ray":
        from ray.scripts.scripts import cli
    elif program == "serve":
        from ray.serve.scripts import cli
    else:
        from huggingface_hub.cli.hf import app as cli
    return cli


def check_pip(arguments: list[str]) -> None:
    """In a process of its own: importing pip changes what `distutils` is."""
    code = "import sys; from pip._internal.commands import create_command as c; c('install').parse_args(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert [word for word in arguments if word.endswith(".txt") and not (ROOT / word).is_file()] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", " ".join(arguments))) <= set(extras)


def check_variables(names: list[str]) -> None:
    """Ray or this project reads each variable."""
    serve = Path(str(importlib.util.find_spec("ray").origin)).parent / "serve"  # type: ignore[union-attr]
    files = [*serve.glob("_private/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
    text = "".join(file.read_text() for file in files)
    assert [name for name in names if f'"{name}"' not in text] == []


def test_each_block_has_a_kind_that_is_checked() -> None:
    assert {
        (file, kind) for file, kind, _ in snippets() if kind not in ("shell", "inline", "python", "mermaid", "text")
    } == set()


def test_links_resolve() -> None:
    broken = []
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            if not link.startswith("http") and not (target.exists() and (not anchor or anchor in anchors(target))):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def anchors(document: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_options_and_fields_exist() -> None:
    stages = set(fields_of(Recipe))
    wrong = []
    for file, kind, text in snippets():
        if kind == "inline":
            options = [option.replace("-", "_") for option in re.findall(r"--([a-z_-]+(?:\.[a-z_-]+)+)", text)]
            fields = [name for name in SECTION.findall(text) if SECTION.fullmatch(text.split(" ")[0])]
            names = {name for name in [*options, *fields] if name.split(".")[0] in stages}
            wrong += [f"{file}: {name}" for name in names if not is_field(name) and not name.endswith(".py")]
    assert sorted(set(wrong)) == []


def fields_of(kind: Any) -> dict[str, Any]:
    """Fields of a dataclass with their types; none of another type."""
    return get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}


def is_field(name: str) -> bool:
    kind: Any = Recipe
    for part in name.split("."):
        kinds = [kind, *get_args(kind)]
        kind = next((fields_of(one)[part] for one in kinds if part in fields_of(one)), None)
        if kind is None:
            return False
    return True


def test_files_modules_and_functions_exist() -> None:
    missing = []
    for file, kind, text in snippets():
        if kind == "inline":
            paths = re.findall(r"(?:vgs_ray|pipelines|tests|bench|jobs)/[\w/.]*\w", text)
            missing += [f"{file}: {path}" for path in paths if not (ROOT / path).exists()]
            dotted = re.fullmatch(r"(vgs_ray|pipelines)(\.\w+)+", text) and text not in OBJECTS
            missing += [f"{file}: {text}"] if dotted and not is_defined(text.split(".")) else []
    assert missing == []


def test_arrows_of_the_module_diagram_are_imports() -> None:
    [diagram] = [text for _, kind, text in snippets() if kind == "mermaid" and "config, data" in text]
    packages = {name: names.split(", ") for name, names in re.findall(r'(\w+)\["(.+?)"\]', diagram)}
    arrows = re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", diagram, re.M)
    assert arrows
    wrong = [(a, b) for a, b in arrows if not any(imports(one, packages[b]) for one in packages[a])]
    assert wrong == []


def imports(package: str, others: list[str]) -> bool:
    """Whether a file of the package imports one of the others."""
    folder = ROOT / ("pipelines" if package == "pipelines" else f"vgs_ray/{package.replace('.', '/')}")
    files = [*folder.glob("**/*.py"), folder.with_suffix(".py")]
    text = "".join(file.read_text() for file in files if file.is_file())
    names = [*others, "grade"] if "answers" in others else others  # the public functions of answers
    return any(
        re.search(rf"from vgs_ray\.{re.escape(name)}\b|from vgs_ray import .*\b{name}\b", text) for name in names
    )


def is_defined(parts: list[str]) -> bool:
    """Whether a dotted name is a module, or a name that its longest module defines or imports."""
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.is_file():
            return end == len(parts) or (end == len(parts) - 1 and parts[-1] in names_in(module))
    return False


def names_in(module: Path) -> set[str]:
    found = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_every_stage_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [stage for stage in STAGES if f"python -m pipelines.{stage} sandbox" not in text] == []
