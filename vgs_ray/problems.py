"""The former place of `check`, kept until 0.3: import `vgs_ray.cleaning.rules`."""

from vgs_ray.cleaning.rules import check

__all__ = ["check"]
