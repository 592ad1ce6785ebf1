"""Where the blocks of a beam search end: at the ends of cache blocks, and at a delimiter."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from search_engines import LONG, PROMPT, answers, engines

from vgs_ray.config import Beam, Sampling
from vgs_ray.engines.scripted import END, ScriptedPolicy, ScriptedValue, World
from vgs_ray.search.blocks import aligned_length
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Tree


@given(start=st.integers(0, 10_000), block=st.integers(1, 5_000), cache_block=st.sampled_from([1, 16, 32, 96]))
def test_an_aligned_block_ends_one_token_after_a_cache_block(start: int, block: int, cache_block: int) -> None:
    length = aligned_length(start, block, cache_block)
    part = max(size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96) if size <= block and cache_block % size == 0)
    assert (start + length - 1) % part == 0
    assert abs(length - block) <= part / 2 <= block / 2
    assert length > 0
    assert part == cache_block or block < cache_block


@given(
    prompt=st.integers(1, 70),
    shape=st.builds(Beam, st.integers(1, 2), st.integers(1, 3), st.integers(1, 99), st.integers(1, 3)),
    max_tokens=st.integers(1, 60),
    delimiter=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_aligned_blocks_end_with_cache_blocks(prompt: int, shape: Beam, max_tokens: int, delimiter: bool) -> None:
    world = World(steps=50, slip=0.08)
    policy, value = ScriptedPolicy(world, prompt), ScriptedValue(world, prompt)
    limits = Sampling(max_tokens=max_tokens, stop_token_ids=(1,) if delimiter else ())

    def grow(beam_: Beam, cache_block: int) -> Tree:
        search = beam(policy, value, (3,) * prompt, beam=beam_, sampling=limits, seed=0, cache_block=cache_block)
        return asyncio.run(search)

    tree = grow(replace(shape, align=True), 16)
    assert len(tree.leaves()) == shape.keep * shape.groups
    for node in tree.nodes[1:]:
        assert tree.end(node.id) <= max_tokens
        cut_short = node.tokens[-1] in (1, END) or tree.end(node.id) == max_tokens
        assert cut_short or shape.block < 16 or (prompt + tree.end(node.id) - 1) % 16 == 0
    assert grow(replace(shape, align=True), 1).nodes == grow(shape, 16).nodes == grow(shape, 1).nodes


async def test_one_aligned_block_to_the_end_is_best_of_n() -> None:
    shape = Beam(keep=1, branch=1, block=LONG.max_tokens, groups=6, align=True)
    samples = await sample(*engines(), PROMPT, count=6, sampling=LONG, seed=7)
    guided = await beam(*engines(), PROMPT, beam=shape, sampling=LONG, seed=7, cache_block=32)
    assert answers(guided) == answers(samples)


async def test_blocks_end_at_a_delimiter() -> None:
    steps = replace(LONG, stop_token_ids=(1,))
    tree = await beam(*engines(), PROMPT, beam=Beam(keep=2, branch=2, block=40), sampling=steps, seed=0)
    for node in tree.nodes[1:]:
        assert set(node.tokens[:-1]) <= {0}
        assert node.tokens[-1] in (1, END)
    whole = await sample(*engines(), PROMPT, count=3, sampling=steps, seed=0)
    assert all(leaf.state == "finished" for leaf in whole.leaves())
