"""The former place of `Judge`, kept until 0.3: import `vgs_ray.answers.judge`."""

from vgs_ray.answers.judge import Judge

__all__ = ["Judge"]
