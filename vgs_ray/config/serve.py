"""The OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgs_ray.config.engine import Engine
from vgs_ray.config.ranges import (
    NonEmptyStr,
    NonNegativeInt,
    OptionalModel,
    Port,
    PositiveFloat,
    PositiveInt,
)
from vgs_ray.config.resources import Resources
from vgs_ray.config.sampling import Sampling
from vgs_ray.config.search import Beam


@dataclass(frozen=True)
class Serve:
    """The endpoint."""

    host: NonEmptyStr = "127.0.0.1"
    """Address that the proxy listens on."""
    port: Port = 8000
    """Port that the proxy listens on."""
    model_name: NonEmptyStr = "vgs"
    """Model name in `/v1/models`."""
    value_model: OptionalModel = ""
    """Folder, URL or Hugging Face id of a value model, as in `evaluate.value_model`. The policy is that of `evaluate.policy`."""
    beam: Beam = Beam(keep=2, branch=2, groups=4)
    """Search for a request that sets none."""
    sampling: Sampling = Sampling()
    """Sampling parameters for a request that sets none."""
    layout: Literal["together", "apart"] = "apart"
    """`together` runs both engines in each search replica, for tiny models. `apart` gives each engine its own replicas, which all
    searches share: engines scale independently, and a search survives the loss of one."""
    policy_engine: Engine = Engine(gpu_memory_utilization=0.5)
    """Engine of the policy."""
    value_engine: Engine = Engine(gpu_memory_utilization=0.4)
    """Engine of a separate value model."""
    resources: Resources = Resources(num_cpus=2.0)
    """Layout `together` only: search replicas, each with both engines."""
    search_replicas: PositiveInt = 1
    """Layout `apart` only: search replicas, which hold no engine."""
    search_max_replicas: NonNegativeInt = 0
    """Maximum number of search replicas under load, in both layouts; 0 disables autoscaling."""
    policy_resources: Resources = Resources(num_gpus=0.5)
    """Layout `apart` only: replicas of the policy engine."""
    value_resources: Resources = Resources(num_gpus=0.5)
    """Layout `apart` only: replicas of the value engine."""
    policy_max_replicas: NonNegativeInt = 0
    """Layout `apart` only: maximum number of policy replicas under load; 0 disables autoscaling."""
    value_max_replicas: NonNegativeInt = 0
    """Layout `apart` only: maximum number of value replicas under load; 0 disables autoscaling."""
    block_timeout_s: PositiveFloat = 1800.0
    """Layout `apart` only: time limit for one block or score in seconds. It includes the wait for a new replica. Then 503."""
    max_budget: PositiveInt = 256
    """Maximum budget of a request."""
    max_beams: PositiveInt = 1024
    """Maximum number of beams that run at the same time, over all searches. Other searches wait."""
    max_waiting: NonNegativeInt = 64
    """Maximum number of searches that wait. Further requests are refused with 429."""
    max_problem_chars: PositiveInt = 16384
    """Maximum length of a problem in characters."""
    request_timeout_s: PositiveFloat = 30.0
    """Time limit for receiving the headers and body of a request, in seconds; then 408."""
    connections_per_address: NonNegativeInt = 5000
    """Maximum number of connections from one client address at HAProxy; 0 for no limit. Clients behind one proxy or NAT share an
    address."""
    cors_origins: tuple[NonEmptyStr, ...] = ()
    """Origins whose pages may send requests; `*` means all. An origin has no path: `https://chat.example`."""
    log_requests: bool = False
    """Log each problem and its answer."""
