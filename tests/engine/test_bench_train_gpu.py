"""`bench/train_gpu.py` runs where only torch and transformers are installed; here on a CPU, with a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BARE = """
import runpy, sys
for name in ("ray", "vllm", "pyarrow", "obstore", "upath", "trl", "tyro", "pydantic", "annotated_types", "docstring_parser"):
    sys.modules[name] = None  # as if it was not installed
sys.argv = ["train_gpu.py", "--device", "cpu", "--rounds", "1", "not-compiled-checkpoint", "varlen_fa3"]
runpy.run_path("bench/train_gpu.py", run_name="__main__")
"""


def test_a_row_for_each_switch_and_the_reason_for_those_that_fail() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'bench'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    checkpoint, missing = done.stdout.splitlines()[2:]
    name, attention, kept, compiled, *numbers = checkpoint.split()
    assert (name, attention, kept, compiled) == ("not-compiled-checkpoint", "varlen", "checkpoint", "no")
    assert float(numbers[2].replace(",", "")) > 0  # tokens/s
    assert missing.split()[:2] == ["varlen_fa3", "ValueError:"]
