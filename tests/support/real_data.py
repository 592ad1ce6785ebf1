"""Where the real problems, answers and traces lie, if they are on this machine."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
