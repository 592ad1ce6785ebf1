"""Explorers: coroutines that grow one problem's tree with a `Policy` and a `Value`.

`sample` draws independent answers, `beam` is value-guided search, `rebase` shares blocks in proportion to values,
`particle_filter` draws them, `mcts` is Monte Carlo tree search, and `deepconf` filters samples by the policy's confidence.
`vgs_ray.search.select` chooses an answer among the tree's leaves. Calls of a search run concurrently; cancelling the search
cancels them. An equal seed gives an equal tree, in whatever order the engines respond.
"""

from vgs_ray.search.beam import beam
from vgs_ray.search.deepconf import deepconf
from vgs_ray.search.mcts import mcts
from vgs_ray.search.particles import particle_filter
from vgs_ray.search.rebase import rebase
from vgs_ray.search.sample import sample

__all__ = ["beam", "deepconf", "mcts", "particle_filter", "rebase", "sample"]
