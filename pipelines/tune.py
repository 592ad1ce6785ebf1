"""tune: train the policy and its value head on the tables `pairs` and `value_paths` with Ray Train, and save them as a Hugging
Face folder.

Training resumes from its last checkpoint after a failure.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import ray
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.placement import check_worker_nodes, worker_options
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.node_store import NodeStore
from pipelines.tables.pair_store import open_pair_store, pair_store
from pipelines.tables.stage import Stage, open_stage
from pipelines.train import BAR_FORMAT, interruptible, run_config, scaling_config
from vgs_ray.config import Recipe, Tune
from vgs_ray.data.files import remove_folder
from vgs_ray.errors import UserError
from vgs_ray.fast_imports import fast_imports
from vgs_ray.models import model_path
from vgs_ray.models.folder import local_folder
from vgs_ray.prompts import load_tokenizer
from vgs_ray.value.slot import choose_slot
from vgs_ray.value.training.metrics_log import METRICS_LOG, last_step, read_metrics
from vgs_ray.value.training.trackers import check_trackers
from vgs_ray.value.tuning.metrics import last_validation, progress_text
from vgs_ray.value.tuning.pairs import count_pairs
from vgs_ray.value.tuning.stored_paths import count_paths
from vgs_ray.value.weights import read_config

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "tune", inputs=("pairs",))
    if stage is not None:
        _check_packages(recipe.tune)
        tune_policy(recipe, stage)


def tune_policy(recipe: Recipe, stage: Stage) -> None:
    """Train and complete the stage.

    Raises:
        UserError: the pairs can't be trained on, or the training diverged.
    """
    log = stage.folder / METRICS_LOG
    with ray_session(folder=stage.folder, nodes=stage.nodes):
        store = pair_store(recipe)
        data = prepare_data(recipe, store)
        steps = recipe.tune.steps(data.pairs["train"])
        watch = Watched(stage.folder, uuid4().hex)
        with (
            progress("tune", steps, lambda: last_step(log), "step", lambda: progress_text(log), BAR_FORMAT, watch),
            interruptible(),
        ):
            diverged = trainer(recipe, store, watch.token).fit().return_value
        if diverged:
            raise UserError(diverged)
        store.remove()
    remove_folder(stage.folder / "checkpoints")
    validation = {name: round(value, 4) for name, value in last_validation(read_metrics(log)).items()}
    stage.close(pairs=data.pairs, value_paths=data.paths, steps=steps, validation=validation)


class TuneData(NamedTuple):
    """Number of pairs and of paths in `train` and `validation`, and of those `left_out` because they are too long."""

    pairs: dict[str, int]
    paths: dict[str, int]


def prepare_data(recipe: Recipe, store: NodeStore) -> TuneData:
    """Copy the tables to one node, and check there that training can start.

    Returns:
        What there is to train on. A warning is printed if sequences are left out, and if nothing can be validated on.

    Raises:
        UserError: there is nothing to train on, or the policy can't have a value head or can't read the pairs.
    """
    config, limit = recipe.tune, recipe.tune.max_length
    check_worker_nodes("tune", config)
    # With the resources of a worker, so that the copy is on a node that is likely to train.
    task = ray.remote(**worker_options(config))(check_data)
    data: TuneData = ray.get(task.remote(recipe, store))
    if not data.pairs["train"]:
        raise UserError(
            f"stage pairs has no pair of at most tune.max_length={limit:,} tokens in the split train "
            f"({data.pairs['left_out']:,} are longer); training needs one: raise --tune.max-length, or lower --pairs.min-margin "
            "in a new run"
        )
    if config.paths and not data.paths["train"]:
        raise UserError(
            f"tune.paths is {config.paths}, and stage pairs has no path of at most tune.max_length={limit:,} tokens in the split "
            f"train ({data.paths['left_out']:,} are longer): raise --tune.max-length, pass --tune.paths 0, or, if an earlier "
            f"version made the stage, remove {recipe.stage_folder('pairs')} and run it again"
        )
    for name, counts in data._asdict().items():
        if counts["left_out"]:
            tqdm.write(
                f"warning: {counts['left_out']:,} {name} are longer than tune.max_length={limit:,} tokens and are left out; "
                "raise tune.max_length to use them"
            )
    if not data.pairs["validation"]:
        tqdm.write("warning: no pair belongs to a validation problem, so nothing is validated; raise clean.validation")
    return data


def check_data(recipe: Recipe, store: NodeStore) -> TuneData:
    """Check the policy, copy the pairs and paths that fit, and count them.

    Raises:
        UserError: the policy can't have a value head, or another tokenizer made the pairs.
    """
    init = recipe.resolved_tune.init
    try:
        folder = local_folder(model_path(init))
        choose_slot(folder, read_config(folder))
    except ValueError as error:
        raise UserError(f"tune.init is {init!r}: {error}") from None
    vocabularies = [
        load_tokenizer(model_path(model)).get_vocab() for model in dict.fromkeys((recipe.policy.model, init))
    ]
    if any(each != vocabularies[0] for each in vocabularies):
        raise UserError(
            f"tune.init is {init!r}, whose tokenizer differs from that of policy.model, {recipe.policy.model!r}; the pairs are "
            "token ids of the policy: pass a model with the same tokenizer as --tune.init"
        )
    folder = open_pair_store(recipe, store)
    return TuneData(count_pairs(folder), count_paths(folder))


def trainer(recipe: Recipe, store: NodeStore, tally: str) -> TorchTrainer:
    """Ray Train on the pairs. A failed worker group is restarted from the last checkpoint. Workers report to the tally."""
    with fast_imports():
        from ray.train.torch import TorchTrainer  # loads torch, which skipped stages do not need

    config = recipe.tune
    return TorchTrainer(
        _tune_worker,
        train_loop_config={"recipe": recipe, "store": store, "tally": tally},
        scaling_config=scaling_config(config, config.workers),
        run_config=run_config(recipe.stage_folder("tune"), config.max_failures),
    )


def _tune_worker(config: dict[str, Any]) -> str:
    with fast_imports():
        from pipelines.actors.tuning import tune_worker  # loads transformers and TRL, which only the workers need

    return tune_worker(config)


def _check_packages(config: Tune) -> None:
    if find_spec("trl") is None or find_spec("accelerate") is None:
        raise UserError("stage tune needs TRL and Accelerate, which are not installed: run pip install '.[svpo]'")
    try:
        check_trackers(config.trackers, "tune")
    except ValueError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    cli(run, "pipelines.tune")
