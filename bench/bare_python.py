"""For machines with torch and transformers only: import this before vgs_ray.

The fields of vgs_ray.config have types of the package annotated_types. They matter to checks and `--help` only.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

if importlib.util.find_spec("annotated_types") is None:
    module = ModuleType("annotated_types")
    for name in ("Ge", "Gt", "Le", "Lt", "MinLen"):
        setattr(module, name, lambda bound: bound)
    sys.modules["annotated_types"] = module
