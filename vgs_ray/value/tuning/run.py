"""One training run on pairs, in the processes of torch.distributed or in a single one."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import AutoModelForCausalLM
from trl import DPOConfig

from vgs_ray.config import Tune
from vgs_ray.config.train import shard_count
from vgs_ray.data.local_copies import local_copy, remove_local_copy
from vgs_ray.models import model_path
from vgs_ray.models.folder import VALUE_HEAD, local_folder
from vgs_ray.prompts import load_tokenizer
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.tuning.checkpoints import KEPT, TuneCheckpoints
from vgs_ray.value.tuning.pairs import SPLITS, open_pairs
from vgs_ray.value.tuning.paths import ValuePaths
from vgs_ray.value.tuning.trainer import Report, TuneTrainer


def tune(
    config: Tune, store: Path, checkpoints: TuneCheckpoints, seed: int, workers: int, report: Report
) -> TuneTrainer:
    """Train from `config.init`, or continue from the newest checkpoint. All workers call it together.

    Args:
        config: settings.
        store: folder that `vgs_ray.value.tuning.store.write_store` wrote.
        checkpoints: the checkpoints of the run.
        seed: of the order of the pairs and the paths, of a new head and of dropout.
        workers: number of processes.
        report: see `TuneTrainer`.

    Raises:
        TuneDivergedError: the loss or the gradient norm is NaN or infinite; raised on all workers.
    """
    train, validation = (open_pairs(store, split) for split in SPLITS)
    paths = ValuePaths(store, "train"), ValuePaths(store, "validation")
    tokenizer = copy.deepcopy(load_tokenizer(model_path(config.init)))  # TRL changes it
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    steps = config.steps(len(train))
    model = load_model(config, seed)
    settings = copy.deepcopy((model.policy.config, model.policy.generation_config))
    trainer = TuneTrainer(
        model, _reference(config), config, (train, validation if len(validation) else None), paths, report, checkpoints,
        args=training_arguments(config, checkpoints.local, seed, workers, steps, len(validation) > 0),
        processing_class=tokenizer,
    )  # fmt: skip
    # Rank 0 decides for all workers: on a shared file system, others may see a new folder later.
    newest = broadcast_object_list([checkpoints.newest() if trainer.is_world_process_zero() else None])[0]
    resumed = local_copy(*newest) if newest else None
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if resumed:
        trainer.accelerator.wait_for_everyone()
        remove_local_copy(resumed, newest[0])
    model.policy.config, model.policy.generation_config = settings  # the Trainer replaces the ids of special tokens
    return trainer


def load_model(config: Tune, seed: int) -> PolicyValueModel:
    """The policy to train in float32, with the head that its folder has, or with a new one."""
    path = model_path(config.init)
    if not (local_folder(path) / VALUE_HEAD).is_dir():
        return PolicyValueModel.from_policy(path, config.dropout, seed)
    model = PolicyValueModel.from_pretrained(path)
    model.head_config = replace(model.head_config, dropout=config.dropout)
    cast(nn.Dropout, model.head[0]).p = config.dropout
    return model


def _reference(config: Tune) -> Any:
    if config.loss != "dpo":
        return None
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    return AutoModelForCausalLM.from_pretrained(local_folder(model_path(config.init)), dtype=dtype)


class ShardedArguments(DPOConfig):
    """Arguments for a model that is only moved to the device in shards."""

    @property
    def place_model_on_device(self) -> bool:
        return False


def training_arguments(config: Tune, folder: Path, seed: int, workers: int, steps: int, validates: bool) -> DPOConfig:
    """TRL's arguments; the batch is divided among workers and forward passes."""
    kind = DPOConfig if shard_count(config.shard_size, workers) == 1 else ShardedArguments
    return kind(
        output_dir=str(folder),
        seed=seed,
        max_steps=steps,
        per_device_train_batch_size=config.micro_batch,
        per_device_eval_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch_size // (config.micro_batch * workers),
        learning_rate=config.lr,
        lr_scheduler_type="cosine",
        # The first step of a warm-up has the rate 0.
        warmup_steps=min(math.ceil(config.warmup_share * steps), steps - 1),
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip_norm,
        beta=config.beta,
        loss_type=["sigmoid"],
        loss_weights=[float(config.loss == "dpo")],
        precompute_ref_log_probs=config.loss != "dpo",  # so that TRL loads no reference
        max_length=None,
        bf16=config.bf16,
        use_cpu=not config.gpus_per_worker,
        gradient_checkpointing=config.activations == "checkpoint" and config.loss != "none",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.validate_every,
        save_steps=config.checkpoint_every,
        save_total_limit=KEPT,
        prediction_loss_only=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # TRL computes the losses outside of the forward pass
        report_to=[],
        disable_tqdm=True,
    )
