"""A batch of pairs for TRL's trainer, with the targets of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference


@dataclass
class PairCollator(DataCollatorForPreference):
    """TRL's batch of token ids, with `q` (2 * pairs,), chosen sides first, and `pair_id`."""

    without_reference: bool = False

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        batch["q"] = torch.tensor([each[side] for side in ("q_chosen", "q_rejected") for each in examples])
        batch["pair_id"] = [each["pair_id"] for each in examples]
        if self.without_reference:  # for TRL, which subtracts these from the log-probabilities
            batch["ref_chosen_logps"] = batch["ref_rejected_logps"] = torch.zeros(len(examples))
        return batch
