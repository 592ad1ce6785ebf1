"""A trained policy with its value head as a Hugging Face folder with weights, tokenizer and model card."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from vgs_ray.data.files import atomic_folder
from vgs_ray.data.storage import AnyPath
from vgs_ray.models.folder import VALUE_HEAD, is_path
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.publish import copy_tokenizer, table

CARD = """\
---
library_name: transformers
tags: [dpo, trl, value-guided-search]
{base_model}---
# {name}

A policy with a value head, trained on preference pairs from search trees (SVPO, arXiv 2406.10858). It was initialized from
`{init}`. Loss of the policy: `{loss}`.

Transformers and vLLM load this folder as the policy alone. The head is in `{head}/`; it predicts Q = 2 P(correct) - 1 of a prefix
from the last hidden state of its last token.

```python
from vgs_ray.value.policy_value import PolicyValueModel

q = PolicyValueModel.from_pretrained(folder).values(input_ids)  # (batch, length)
```

## Validation on pairs of held-out problems
{validation}

## Training data
{data}

## Settings
```json
{settings}
```
"""


def save_policy_value(
    model: PolicyValueModel,
    weights: dict[str, Tensor],
    settings: dict[str, Any],
    name: str,
    validation: dict[str, float],
    counts: dict[str, dict[str, int]],
    folder: AnyPath,
) -> None:
    """Write the model. The folder is complete or absent.

    Args:
        model: the model, for its configuration.
        weights: unsharded weights under the names of the model's parameters. The policy is saved in bfloat16 if it was trained
            in bfloat16.
        settings: settings of stage tune, of which `init` is the model whose tokenizer is copied.
        name: name of the run.
        validation: metrics of the last validation; empty if there was none.
        counts: number of pairs and of paths by what became of them.
        folder: folder to write; replaced if it exists.
    """
    if settings["bf16"]:
        model.policy.config.dtype = torch.bfloat16
        weights = {key: each.bfloat16() if key.startswith("policy.") else each for key, each in weights.items()}
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, weights)
        copy_tokenizer(settings["init"], temporary)
        (temporary / "README.md").write_text(_card(settings, name, validation, counts))


def _card(settings: dict[str, Any], name: str, validation: dict[str, float], counts: dict[str, dict[str, int]]) -> str:
    init = settings["init"]
    data = [(f"{kind}, {split}", f"{count:,}") for kind, splits in counts.items() for split, count in splits.items()]
    metrics = [(metric, f"{value:.4g}") for metric, value in validation.items()]
    return CARD.format(
        name=name,
        base_model="" if init.startswith(("sandbox:", "package:")) or is_path(init) else f"base_model: {init}\n",
        init=init,
        loss=settings["loss"],
        head=VALUE_HEAD,
        validation=table(("metric", "value"), metrics) if metrics else "No validation was run.",
        data=table(("rows", "number"), data),
        settings=json.dumps(settings, indent=1),
    )
