"""GPUs by the name in Ray's label `ray.io/accelerator-type`: memory as the driver reports it, and peaks from data sheets."""

from __future__ import annotations

from typing import NamedTuple

LABEL = "ray.io/accelerator-type"


class Accelerator(NamedTuple):
    """A GPU: its memory in GiB, and its dense bfloat16 peak in TFLOP/s."""

    gib: float
    tflops: float


UNKNOWN = Accelerator(0.0, 0.0)
ACCELERATORS = {
    "A10G": Accelerator(22.5, 70),
    "L4": Accelerator(22.5, 121),
    "L40S": Accelerator(45.0, 362),
    "A100-40G": Accelerator(40.0, 312),
    "A100-80G": Accelerator(80.0, 312),
    "H100": Accelerator(79.6, 989),
    "H200": Accelerator(140.4, 989),
    "B200": Accelerator(179.0, 2250),
}
