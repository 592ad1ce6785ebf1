"""The sandbox: generated problems with exact answers (`world`, `rows`), and two tiny policies for them (`policies/`)."""

from pathlib import Path

POLICIES = ("ref", "weak")


def policy_path(name: str) -> Path:
    """Return the folder of a shipped policy."""
    folder = Path(__file__).parent / "policies" / name
    if name not in POLICIES:
        raise ValueError(f"unknown sandbox policy {name!r}: choose one of {', '.join(POLICIES)}")
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no sandbox policy at {folder}: restore it from the repository, or train it with "
            "'python -m vgs_ray.sandbox.train_policy --out vgs_ray/sandbox/policies --seed 0'"
        )
    return folder
