"""`Judge` has moved to `vgs_ray.answers.judge`. This module stays until version 0.3."""

from vgs_ray.answers.judge import Judge

__all__ = ["Judge"]
