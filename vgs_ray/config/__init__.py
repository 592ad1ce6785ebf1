"""Configuration: one frozen dataclass for each stage, all of them in one `Recipe`.

The values are plain: any process can pickle, compare and print them as JSON. Nothing here loads ray, torch or vllm.
"""

from vgs_ray.config.data import (
    Clean,
    Export,
    Generator,
    ImportVM,
    JudgeLimits,
    Label,
    ReferencePolicy,
    RollIn,
    RollOut,
    Verify,
)
from vgs_ray.config.engine import Engine
from vgs_ray.config.evaluate import Evaluate
from vgs_ray.config.plan import PlanAssumptions
from vgs_ray.config.recipe import STAGES, SVPO_STAGES, Recipe
from vgs_ray.config.resources import Resources
from vgs_ray.config.sampling import Sampling
from vgs_ray.config.search import Beam, DeepConf, Mcts, ParticleFilter, Rebase, Shape, Variant, alphamath
from vgs_ray.config.serve import Serve
from vgs_ray.config.svpo import Pairs, Trees, Tune
from vgs_ray.config.train import Train

__all__ = [
    "STAGES", "SVPO_STAGES", "Beam", "Clean", "DeepConf", "Engine", "Evaluate", "Export", "Generator", "ImportVM",
    "JudgeLimits", "Label", "Mcts", "Pairs", "ParticleFilter", "PlanAssumptions", "Rebase", "Recipe", "ReferencePolicy",
    "Resources", "RollIn", "RollOut", "Sampling", "Serve", "Shape", "Train", "Trees", "Tune", "Variant", "Verify", "alphamath",
]  # fmt: skip
