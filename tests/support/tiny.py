"""Settings of the engines that tests share, and tokens for them."""

from __future__ import annotations

import random

from vgs_ray.config import Engine

EOS = 1
TINY_ENGINE = Engine(
    max_model_len=256, max_num_seqs=32, kv_cache_gib=0.1, dtype="float32", enforce_eager=True, threads=1
)


def some_tokens(seed: int, length: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(2, 120) for _ in range(length))
