"""`check` has moved to `vgs_ray.cleaning.rules`. This module stays until version 0.3."""

from vgs_ray.cleaning.rules import check

__all__ = ["check"]
