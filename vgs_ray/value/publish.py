"""A trained value model as a Hugging Face folder: weights, tokenizer and a model card; and its way to the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from vgs_ray.data.files import atomic_folder
from vgs_ray.models import model_path
from vgs_ray.models.folder import TOKENIZER_FILES
from vgs_ray.prompts import load_tokenizer
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.metrics_log import REPORTED


def save_value_model(model: ValueModel, weights: dict[str, Tensor], init: str, card: str, folder: Path) -> None:
    """A folder in the layout of the released value model, with its tokenizer; whole or absent.

    Args:
        model: gives the configuration.
        weights: whole ones.
        init: where the tokenizer comes from.
        card: text of README.md.
        folder: replaced where it exists.
    """
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, weights)
        (temporary / "README.md").write_text(card)
        source = Path(model_path(init))
        if source.is_dir():
            for name in TOKENIZER_FILES:
                if (source / name).exists():
                    shutil.copy(source / name, temporary / name)
        else:
            load_tokenizer(init).save_pretrained(temporary)


def model_card(name: str, config: dict[str, Any], metrics: dict[str, float], data: dict[str, dict[str, int]]) -> str:
    """README.md of a value model.

    Args:
        name: of the run.
        config: of the stage train.
        metrics: of the last validation, with its step.
        data: counts of the examples by split and class.
    """
    rows = [f"| {key} | {metrics[key]:.4f} |" for key in REPORTED if key in metrics]
    classes = "incorrect, correct, incomplete" if config["loss"] == "outcome" else "one logit of P(correct)"
    return "\n".join(
        [
            "---",
            "library_name: vgs-ray",
            "tags: [value-model, value-guided-search]",
            *([f"base_model: {config['init']}"] if not config["init"].startswith("sandbox:") else []),
            "---",
            f"# {name}",
            "",
            "A token-level value model: for any beginning of an answer it gives P(the finished answer will be correct).",
            f"Outputs of the head: {classes}. Started from `{config['init']}`, loss `{config['loss']}`.",
            "",
            "```python",
            "from vgs_ray.value.model import ValueModel",
            "",
            "probs = ValueModel.from_pretrained(folder).success_probs(input_ids)  # (batch, length)",
            "```",
            "",
            f"## Validation, step {metrics.get('step', 0):,}, held-out problems",
            *(["| metric | value |", "|---|---|", *rows] if rows else ["None was made."]),
            "",
            "## Data",
            "| split | examples | incorrect | correct | incomplete |",
            "|---|---|---|---|---|",
            *(_counts(split, classes) for split, classes in data.items()),
            "",
            "## Recipe",
            "```json",
            json.dumps(config, indent=1),
            "```",
            "",
        ]
    )


def _counts(split: str, classes: dict[str, int]) -> str:
    return f"| {split} | " + " | ".join(f"{count:,}" for count in (sum(classes.values()), *classes.values())) + " |"


def check_hub_token(repository: str) -> None:
    """Find out before training that the hub can't be reached with what is there.

    Raises:
        ValueError: a repository is named, and there is no token.
    """
    if repository and not os.environ.get("HF_TOKEN"):
        raise ValueError(
            f"train.push_to is {repository!r}, and HF_TOKEN is not set: a push needs a token that may write; set it, or "
            "leave train.push_to empty"
        )


def push_to_hub(folder: Path, repository: str) -> None:
    """Upload the folder; the token comes from the environment."""
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(repository, private=True, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=repository, commit_message="value model by vgs-ray")
