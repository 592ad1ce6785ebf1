"""Particle filter: annealed weights, systematic resampling, and equality with a second implementation."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_engines import PROMPT, Recorded

from vgs_ray.config import ParticleFilter, Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.search.particles import annealed_weights, effective_size, particle_filter, resample

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(values=VALUES, particles=st.integers(0, 40), start=st.floats(0, 0.999))
def test_each_particle_is_drawn_as_often_as_the_strata_hit_it(
    values: list[float], particles: int, start: float
) -> None:
    weights = annealed_weights(values, 0.0)
    counts = resample(weights, particles, start)
    assert sum(counts) == particles
    assert all(abs(count - particles * weight) < 1 + 1e-6 for count, weight in zip(counts, weights, strict=True))


@given(values=VALUES, effective=st.floats(0, 1))
def test_weights_are_annealed_as_little_as_leaves_enough_particles(values: list[float], effective: float) -> None:
    def powers(power: float) -> list[float]:
        odds = [min(max(value, 1e-6), 1 - 1e-6) for value in values]
        raised = [(value / (1 - value)) ** power for value in odds]
        return [each / sum(raised) for each in raised]

    weights = annealed_weights(values, effective)
    least = effective * len(values)
    assert sum(weights) == pytest.approx(1)
    assert effective_size(weights) >= least * (1 - 1e-6)
    if effective_size(powers(1.0)) >= least:
        assert weights == pytest.approx(powers(1.0))
    else:
        assert effective_size(weights) == pytest.approx(least, rel=1e-3, abs=1e-3)


def filtered(recorded: Recorded, shape: ParticleFilter, longest: int, seed: int) -> Counter[Tokens]:
    """The answers of a particle filter, written from its description."""
    live, answers, round = [()] * shape.width, list[Tokens](), 0
    calls: Counter[Tokens] = Counter()
    while live:
        survivors = []
        for text in live:
            calls[PROMPT + text] += 1
            block, ended = recorded.block(PROMPT + text, calls[PROMPT + text])
            longer = text + block[: longest - len(text)]
            (answers if ended or len(longer) >= longest else survivors).append(longer)
        weights = annealed_weights([recorded.value(PROMPT + text) for text in survivors], shape.effective)
        start = random.Random(stable_seed(seed, "resample", round)).random()
        points = [(place + start) / len(survivors) for place in range(len(survivors))]
        ends = [math.fsum(weights[: place + 1]) for place in range(len(weights))]
        live = [survivors[next(at for at, end in enumerate(ends) if point < end + 1e-12)] for point in points]
        round += 1
    return Counter(answers)


@given(seed=st.integers(0, 10_000), width=st.integers(1, 8), longest=st.integers(1, 12), effective=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_the_answers_are_those_of_a_second_implementation(
    seed: int, width: int, longest: int, effective: float
) -> None:
    recorded, shape = Recorded(seed), ParticleFilter(width=width, block=99, effective=effective)
    limits = Sampling(max_tokens=longest)
    tree = asyncio.run(particle_filter(recorded, recorded, PROMPT, shape=shape, sampling=limits, seed=seed))
    assert Counter(tree.path(leaf.id) for leaf in tree.leaves()) == filtered(Recorded(seed), shape, longest, seed)
