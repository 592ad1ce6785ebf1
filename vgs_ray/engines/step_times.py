"""The speed of an engine with a full batch, from steps with batches of any size.

A short run never fills its engines: most of its steps extend the last, longest sequences. The time of a step is modelled as
a + b * sequences, and a and b are fitted by least squares to the steps of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class StepTimes:
    """Sums over the steps of one or several engines.

    Attributes:
        steps: number of steps.
        sequences: that were extended, in all steps.
        step_s: seconds of all steps.
        sequences_squared: sum of the squares of the numbers of sequences.
        sequences_step_s: sum of the products of sequences and seconds.
    """

    steps: float = 0
    sequences: float = 0
    step_s: float = 0
    sequences_squared: float = 0
    sequences_step_s: float = 0

    def add(self, sequences: int, seconds: float) -> None:
        """Count a step."""
        self.steps += 1
        self.sequences += sequences
        self.step_s += seconds
        self.sequences_squared += sequences**2
        self.sequences_step_s += sequences * seconds

    def add_sums(self, sums: Mapping[str, float]) -> None:
        """Count the steps of other sums, which have the names of these attributes."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + sums[name])

    def tokens_per_s(self, batch: float, generated: float) -> float:
        """Tokens/s of one engine while its batch is full; 0 without steps.

        Args:
            batch: number of sequences of a full batch.
            generated: tokens that these steps sampled. A step of a long prompt samples none for its sequence.
        """
        if not self.steps or not self.sequences:
            return 0.0
        mean, mean_s = self.sequences / self.steps, self.step_s / self.steps
        variance = self.sequences_squared / self.steps - mean**2
        covariance = self.sequences_step_s / self.steps - mean * mean_s
        # A step gets slower with more sequences, at most in proportion to them.
        slope = min(max(covariance / variance, 0.0), mean_s / mean) if variance > 1e-9 * mean**2 else 0.0
        return batch * generated / self.sequences / (mean_s + slope * (batch - mean))
