"""Tokens that engines forward and the times of their steps, reported with each block of rows."""

from __future__ import annotations

from dataclasses import asdict

from vgs_ray.engines.interface import Policy
from vgs_ray.engines.step_times import StepTimes

TOKENS = ("generated", "prefilled", "cached")


class UsageReporter:
    """Gives what a policy's engine has done since the last report."""

    def __init__(self, policy: Policy) -> None:
        self._usage = policy.usage
        # The steps of another server are unknown.
        self._times = policy.loop.times if hasattr(policy, "loop") else StepTimes()
        self._reported = self._now()

    def report(self) -> dict[str, float]:
        """New tokens (`generated`, `prefilled` and `cached`), and the sums of `StepTimes` over new steps."""
        before, self._reported = self._reported, self._now()
        return {name: now - before[name] for name, now in self._reported.items()}

    def _now(self) -> dict[str, float]:
        usage = asdict(self._usage)
        return {**{name: usage[name] for name in TOKENS}, **asdict(self._times)}
