"""`our_tables` has moved to `vgs_ray.data.openr1`. This module stays until version 0.3."""

from vgs_ray.data.openr1 import our_tables

__all__ = ["our_tables"]
