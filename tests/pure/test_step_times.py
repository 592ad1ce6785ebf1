"""The speed of full batches, from steps of any size."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.actors.sampling import Totals
from vgs_ray.engines.step_times import StepTimes


def times_of(steps: list[tuple[int, float]]) -> StepTimes:
    times = StepTimes()
    for sequences, seconds in steps:
        times.add(sequences, seconds)
    return times


def test_a_short_run_gives_the_speed_of_full_batches() -> None:
    # 60 sequences of different lengths start together, so the batch of 64 is never full and most steps have few sequences.
    source = random.Random(0)
    lengths = [min(round(source.expovariate(1 / 40)) + 1, 256) for _ in range(60)]
    batches = [sum(length > step for length in lengths) for step in range(max(lengths))]
    times = times_of([(size, (0.05 + 0.002 * size) * source.uniform(0.8, 1.2)) for size in batches])
    full = 64 / (0.05 + 0.002 * 64)
    assert times.tokens_per_s(64, times.sequences) == pytest.approx(full, rel=0.1)
    assert times.sequences / times.step_s < 0.75 * full


def test_steps_of_one_size_scale_no_further_than_their_time() -> None:
    times = times_of([(8, 0.1)] * 5)
    assert times.tokens_per_s(8, 40) == pytest.approx(80)
    assert times.tokens_per_s(16, 40) == pytest.approx(160)
    assert StepTimes().tokens_per_s(8, 0) == 0


def test_tokens_that_steps_did_not_sample_do_not_count() -> None:
    times = times_of([(8, 0.1), (4, 0.1)])
    assert times.tokens_per_s(8, 9) == pytest.approx(0.75 * times.tokens_per_s(8, 12))


@given(st.lists(st.tuples(st.integers(1, 256), st.floats(1e-4, 10.0)), min_size=1, max_size=50), st.integers(1, 512))
def test_the_speed_is_at_most_proportional_to_the_batch(steps: list[tuple[int, float]], batch: int) -> None:
    times = times_of(steps)
    found = times.tokens_per_s(batch, times.sequences)
    mean, mean_s = times.sequences / times.steps, times.step_s / times.steps
    low, high = sorted((mean / mean_s, batch / mean_s))
    assert low * (1 - 1e-6) <= found <= high * (1 + 1e-6)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-3, 1.0)), min_size=2, max_size=20))
def test_sums_of_parts_are_the_sums_of_all(steps: list[tuple[int, float]]) -> None:
    whole, parts = times_of(steps), StepTimes()
    for part in (steps[:1], steps[1:]):
        parts.add_sums(vars(times_of(part)))
    assert vars(parts) == pytest.approx(vars(whole))


def test_a_batch_is_full_when_the_cache_is() -> None:
    totals = Totals("roll_out", 0.0)
    totals.rows, totals.generated, totals.prefilled, totals.cache_tokens = 10, 9_000, 1_000, 4_000.0
    totals.times = times_of([(4, 0.1)] * 2250)
    assert totals.full_tokens_per_s(256) == pytest.approx(totals.times.tokens_per_s(4, 9_000)) == pytest.approx(40)
    assert totals.full_tokens_per_s(2) == pytest.approx(20)
