"""Tokens that engines forward, reported with each block of rows."""

from __future__ import annotations

from dataclasses import asdict

from vgs_ray.engines.interface import Usage


class UsageReporter:
    """Gives the tokens of an engine since the last report."""

    def __init__(self, usage: Usage) -> None:
        self._usage, self._reported = usage, Usage()

    def report(self) -> dict[str, int]:
        """New `generated`, `prefilled` and `cached` tokens."""
        now, reported = asdict(self._usage), asdict(self._reported)
        self._reported = Usage(**now)
        return {name: now[name] - reported[name] for name in ("generated", "prefilled", "cached")}
