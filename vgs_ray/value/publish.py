"""A trained value model as a Hugging Face folder with weights, tokenizer and model card, and its upload to the hub."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgs_ray.data.files import atomic_folder, download_folder
from vgs_ray.data.node_disk import temporary_folder
from vgs_ray.data.storage import AnyPath, is_local
from vgs_ray.models import model_path
from vgs_ray.models.folder import TOKENIZER_FILES, is_path, on_this_machine
from vgs_ray.prompts import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from vgs_ray.value.model import ValueModel

CARD = """\
---
library_name: vgs-ray
tags: [value-model, value-guided-search]
{base_model}---
# {name}

A token-level value model. For each prefix of an answer it predicts P(the finished answer will be correct).
Outputs of the head: {outputs}. Initialized from `{init}` and trained with the loss `{loss}`.

```python
from vgs_ray.value.model import ValueModel

probs = ValueModel.from_pretrained(folder).success_probs(input_ids)  # (batch, length)
```

## Validation on held-out problems, step {step:,}
{validation}

## Data
{data}

## Settings
```json
{settings}
```
"""


def save_value_model(model: ValueModel, weights: dict[str, Tensor], init: str, card: str, folder: AnyPath) -> None:
    """Write a folder in the layout of the released value model. The folder is complete or absent.

    Args:
        model: the model, for its configuration.
        weights: unsharded weights.
        init: model whose tokenizer is copied.
        card: text of README.md.
        folder: folder to write; replaced if it exists.
    """
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, weights)
        (temporary / "README.md").write_text(card)
        copy_tokenizer(init, temporary)


def copy_tokenizer(model: str, folder: Path) -> None:
    """Copy the tokenizer of a model, with its chat template, to a folder."""
    source = Path(on_this_machine(model_path(model), weights=False))
    if source.is_dir():
        for name in TOKENIZER_FILES:
            if (source / name).exists():
                shutil.copy(source / name, folder / name)
    else:
        load_tokenizer(model).save_pretrained(folder)


def model_card(
    name: str, settings: dict[str, Any], step: int, validation: dict[str, float], data: dict[str, dict[str, int]]
) -> str:
    """README.md of a value model.

    Args:
        name: name of the run.
        settings: settings of stage train.
        step: step of the last validation.
        validation: metrics of the last validation; empty if there was none.
        data: number of examples by split and class.
    """
    init = settings["init"]
    metrics = [(metric, f"{value:.4f}") for metric, value in validation.items()]
    counts = [
        (split, *map("{:,}".format, (sum(by_class.values()), *by_class.values()))) for split, by_class in data.items()
    ]
    return CARD.format(
        name=name,
        base_model="" if init.startswith(("sandbox:", "package:")) or is_path(init) else f"base_model: {init}\n",
        outputs="incorrect, correct, incomplete" if settings["loss"] == "outcome" else "one logit of P(correct)",
        init=init,
        loss=settings["loss"],
        step=step,
        validation=table(("metric", "value"), metrics) if metrics else "No validation was run.",
        data=table(("split", "examples", "incorrect", "correct", "incomplete"), counts),
        settings=json.dumps(settings, indent=1),
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def check_hub_token(repository: str) -> None:
    """Check before training that a token for the upload is set.

    Raises:
        ValueError: there is a repository but no token.
    """
    if repository and not os.environ.get("HF_TOKEN"):
        raise ValueError(
            f"train.push_to is {repository!r}, and HF_TOKEN is not set; an upload needs a token with write access: set HF_TOKEN, "
            "or leave train.push_to empty"
        )


def push_to_hub(folder: AnyPath, repository: str) -> None:
    """Upload the folder to a private repository, with the token in HF_TOKEN."""
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(repository, private=True, exist_ok=True)
    with temporary_folder() as temporary:
        if not is_local(folder):
            download_folder(folder, temporary)
        local = folder if is_local(folder) else temporary
        api.upload_folder(folder_path=local, repo_id=repository, commit_message="value model by vgs-ray")
