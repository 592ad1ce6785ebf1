"""Admission of searches by the engines' prefix caches: what is read again, who waits, and that nobody waits forever."""

from __future__ import annotations

import asyncio

import pytest
from admission import simulate

from vgs_ray.search.cache_room import CacheRoom


@pytest.mark.parametrize(("gpu", "budget"), [("H100", 128), ("H100", 256), ("L40S", 256)])
def test_admitted_searches_read_almost_nothing_again(gpu: str, budget: int) -> None:
    counts = simulate(gpu, budget, problems=4, admission=True)
    print(f"\n{gpu}, budget {budget}: {counts.forwarded:.2f} tokens forwarded for each generated one")
    assert counts.forwarded < 1.1
    assert counts.sequences > {"H100": 90, "L40S": 45}[gpu]  # the GPU has enough to do


def test_without_admission_most_prefixes_are_read_again() -> None:
    """So the simulation would notice if admission had no effect."""
    freely = simulate("H100", 128, problems=5, admission=False, samples=False)
    admitted = simulate("H100", 128, problems=5, admission=True, samples=False)
    print(f"\nguided, H100, budget 128: {freely.forwarded:.2f} without admission, {admitted.forwarded:.2f} with it")
    assert freely.value > 0.5
    assert freely.forwarded > 1.9
    assert admitted.forwarded < 1.1


async def held(
    room: CacheRoom, end: asyncio.Event, started: list[str], name: str, most: float, peak: float = 0
) -> None:
    async with room.enter(name[0], 1, most) as hold:
        started.append(name)
        await end.wait()
        hold.needs(peak, 0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_parts_start_in_order_as_far_as_they_fit() -> None:
    room, started = CacheRoom(100), list[str]()
    ends = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(held(room, end, started, name, most))
        for end, name, most in zip(ends, ("a1", "b1", "c1", "d1"), (60, 60, 500, 10), strict=True)
    ]
    await settle()
    assert started == ["a1"]  # d1 would fit, but b1 came first
    ends[0].set()
    await settle()
    assert started == ["a1", "b1"]
    ends[1].set()
    await settle()
    assert started == ["a1", "b1", "c1"]  # does not fit alone, so it runs alone
    ends[2].set()
    ends[3].set()
    await asyncio.gather(*tasks)
    assert started == ["a1", "b1", "c1", "d1"]
    assert (room.held, room.running) == (0, 0)


async def test_parts_reserve_what_their_kind_has_needed() -> None:
    room = CacheRoom(100)
    for _ in range(60):
        async with room.enter("short", 1, 100) as hold:
            hold.needs(10, 0)
    async with room.enter("short", 1, 100) as first:
        assert first.reserved == pytest.approx(10, abs=1)
        first.needs(70, 90)
        assert room.held == first.reserved == 70  # it needs more than the others
        first.needs(20, 20)
        assert room.held == first.reserved == 20  # and now less
        async with room.enter("long", 1, 60) as other:
            assert other.reserved == 60


async def test_short_parts_do_not_queue_up_in_the_engine() -> None:
    room, end, started = CacheRoom(10_000, batch=4), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(held(room, end, started, f"a{part}", 1)) for part in range(20)]
    await settle()
    assert len(started) == 8
    end.set()
    await asyncio.gather(*tasks)


async def test_cancelled_and_failed_parts_give_their_room_back() -> None:
    room, end, started = CacheRoom(100), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(held(room, end, started, name, 100)) for name in ("a1", "b1", "c1")]
    await settle()
    tasks[1].cancel()  # while it waits
    tasks[0].cancel()  # while it runs
    await settle()
    assert started == ["a1", "c1"]
    end.set()
    await tasks[2]
    with pytest.raises(ValueError, match="failed"):
        async with room.enter("a", 1, 50):
            raise ValueError("failed")
    assert (room.held, room.running) == (0, 0)
