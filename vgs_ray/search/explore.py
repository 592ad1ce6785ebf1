"""Explorers: coroutines that grow one problem's tree with a `Policy` and a `Value`.

`sample` draws independent answers, `beam` is value-guided search, `rebase` shares blocks in proportion to values, and `mcts` is
Monte Carlo tree search. `vgs_ray.search.select` chooses an answer among the tree's leaves. Calls of a search run concurrently;
cancelling the search cancels them. An equal seed gives an equal tree, in whatever order the engines respond.
"""

from vgs_ray.search.beam import beam
from vgs_ray.search.mcts import mcts
from vgs_ray.search.rebase import rebase
from vgs_ray.search.sample import sample

__all__ = ["beam", "mcts", "rebase", "sample"]
