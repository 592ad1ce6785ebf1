"""TRL's DPO trainer for a policy with a value head.

In: a policy with its head, pairs and paths as token ids. Out: the trained model, rows of metrics, checkpoints. The values of
pairs come from the last hidden states of the forward pass that gives the log-probabilities; paths have a forward pass of their
own, and one backward pass follows. TRL has no public door for token ids and for further losses, so this class overrides private
methods; pyproject.toml pins TRL.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PrinterCallback
from trl import DPOTrainer

from vgs_ray.config import Tune
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.training.checkpoint import load_state, save_state
from vgs_ray.value.training.parallel import Worker, device_mesh, release, shard, sharing, whole_weights
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints
from vgs_ray.value.tuning.collator import PairCollator
from vgs_ray.value.tuning.diverged import TuneDivergedError
from vgs_ray.value.tuning.losses import PairLosses, pair_losses, path_errors
from vgs_ray.value.tuning.metrics import NodeValues, ValuePredictions, named_metrics, summarize_nodes
from vgs_ray.value.tuning.paths import PathBatch, PathOrder, ValuePaths

Report = Callable[[dict[str, float]], None]
HEAD = "value_head"
"""Name of the head as a module of the policy."""
STATE, SCHEDULER = "state", "scheduler.pt"
"""Folder and file of a checkpoint."""


class TuneTrainer(DPOTrainer):
    """Trains a policy and its value head by one joint loss.

    The loss is DPO (arXiv 2305.18290, equation 7) + `sft_weight` * the mean over the pairs of the mean negative log-probability
    of the tokens of chosen (arXiv 2404.19733, equation 2) + `value_weight` * squared error + `margin_weight` * margin loss. The
    squared error is the mean over the sequences of a forward pass, which are the sides of its pairs and its paths, of the mean
    over their nodes. With `config.loss` = `sft`, the first term is absent and the second has the weight 1; with `none`, both are
    absent and the policy is frozen. No reference model is loaded for these two.

    Args:
        model: the policy and its head.
        reference: the frozen model of DPO; None for the other losses.
        config: settings.
        pairs: training and validation pairs, as `vgs_ray.value.tuning.pairs.open_pairs` returns them; validation may be None.
        paths: training and validation paths; training ones are not used if `config.paths` is 0.
        report: called on rank 0 with the metrics of each step, and again with those of a validation after the step added.
        checkpoints: where checkpoints are stored; its `local` is the `output_dir`.
        kwargs: arguments of `DPOTrainer`.
    """

    def __init__(
        self,
        model: PolicyValueModel,
        reference: Any,
        config: Tune,
        pairs: tuple[Any, Any],
        paths: tuple[ValuePaths, ValuePaths],
        report: Report,
        checkpoints: TuneCheckpoints,
        **kwargs: Any,
    ) -> None:
        self.optimizer: torch.optim.Optimizer | None
        self.policy_value, self._config, self._report, self._checkpoints = model, config, report, checkpoints
        self._predictions = ValuePredictions()
        self._row: dict[str, float] = {}
        self._begin: tuple[float, int] = (time.monotonic(), 0)
        collator = PairCollator(kwargs["processing_class"].pad_token_id, without_reference=reference is None)
        super().__init__(
            model.policy, reference, train_dataset=pairs[0], eval_dataset=pairs[1], data_collator=collator, **kwargs
        )
        if config.loss == "none":
            model.policy.requires_grad_(False)
        self.remove_callback(PrinterCallback)
        # After TRL has turned off the dropout of the policy. As a module of the policy, the head is sharded and saved with it.
        model.policy.add_module(HEAD, model.head.to(self.args.device))
        self._held_out = paths[1]
        self._order = self._path_order(paths[0]) if config.paths else None
        self._shard()

    def _path_order(self, paths: ValuePaths) -> PathOrder:
        config, workers = self._config, self.args.world_size
        per_pass = config.paths * config.micro_batch // config.batch_size
        return PathOrder(paths, config.paths, per_pass, self.args.seed, self.args.process_index, workers)

    def _shard(self) -> None:
        """Shard the policy, its head and the reference, as configured."""
        config, workers = self._config, self.args.world_size
        worker = Worker(self.args.process_index, workers, self.args.device)
        if (shared := sharing(config.shard_size, worker)) == 1:
            return
        mesh = device_mesh(shared, worker)
        shard(self.policy_value.head, (), mesh, torch.float32, False, workers)  # in float32, as `q_values` computes it
        for model in filter(None, (self.policy_value.policy, self.ref_model)):
            dtype = torch.bfloat16 if config.bf16 else torch.float32
            shard(model, model.base_model.layers, mesh, dtype, config.reshard, workers)
        self.is_distributed_loading_by_transformers = True  # the Trainer then neither wraps nor moves the model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        policy = self.policy_value.policy
        hooks = (
            policy.base_model.register_forward_hook(self._keep_values),
            policy.register_forward_hook(self._keep_log_probs),
        )
        try:
            return super().train(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_values(self, module: Any, args: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            self._values = self.policy_value.q_values(hidden[self._nodes])

    def _keep_log_probs(self, module: Any, args: Any, output: Any) -> None:
        self._log_probs = output.get("log_probs")  # not in a pass over paths

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        """Nothing to do: the pairs are token ids, whose length stage tune has checked."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
        """Nothing to do: without a reference, the collator gives zeros."""
        return dataset

    def _send_telemetry(self) -> None:
        """TRL would report each run to Hugging Face."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL would write one into each checkpoint."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, with another learning rate for the head."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decaying = set(self.get_decay_parameter_names(model))
            trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
            groups = []
            for of_head, lr in ((False, self._config.lr), (True, self._config.head_lr)):
                for decays, decay in ((True, self._config.weight_decay), (False, 0.0)):
                    weights = [
                        weight for name, weight in trained if (HEAD in name) == of_head and (name in decaying) == decays
                    ]
                    groups += [{"params": weights, "lr": lr, "weight_decay": decay}] if weights else []
            self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Tensor:
        inputs = dict(inputs)
        pair_ids, q = inputs.pop("pair_id"), inputs.pop("q")
        config, mask = self._config, inputs["completion_mask"][:, 1:]
        self._nodes = torch.arange(len(q), device=q.device), inputs["attention_mask"].sum(1) - 1
        policy_loss = super()._compute_loss(model, inputs, False)
        log_probs, values = self._log_probs, self._values
        losses = pair_losses(log_probs, mask, values, q, config.margin)
        by_pair = torch.stack([*losses, log_probs.sum(1).view(2, -1).sum(0)]).sum(0)
        path_ids, of_paths = self._train_on_paths(model) if self.model.training and self._order else ([], None)
        sft_weight = {"dpo": config.sft_weight, "sft": 1.0, "none": 0.0}[config.loss]
        loss = policy_loss + losses.total(sft_weight, config.value_weight, config.margin_weight, of_paths)
        by_row = by_pair if of_paths is None else torch.cat([by_pair, of_paths])
        self._refuse_nan(loss, by_row, [*pair_ids, *path_ids])
        self._note(losses, values, q)
        return loss

    def _train_on_paths(self, model: Any) -> tuple[list[str], Tensor]:
        """The ids of the paths of this forward pass, and their squared errors."""
        assert self._order
        batch = self._order.next(self.state.global_step).to(self.args.device)
        errors = path_errors(self._values_of(model, batch), batch.q, batch.rows, len(batch.ids))
        self._metrics["train"]["path_error"].append(self.accelerator.gather(errors.detach()).mean().item())
        return batch.ids, errors

    def _values_of(self, model: Any, batch: PathBatch) -> Tensor:
        """(nodes,) values. The whole model is called, because it gathers its weights if they are sharded."""
        self._nodes = batch.rows, batch.columns
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=False)
        return self._values

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The loop over the validation pairs, and the metrics of the values of validation paths."""
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics.update(self._validate_paths())
        release(self.policy_value.policy)
        return output

    @torch.no_grad()
    def _validate_paths(self) -> dict[str, float]:
        paths, workers, size = self._held_out.held_out().tolist(), self.args.world_size, 2 * self._config.micro_batch
        found: list[NodeValues] = []
        for begin in range(0, len(paths), workers * size):
            own = paths[begin + self.args.process_index : begin + workers * size : workers]
            batch = self._held_out.batch(own or paths[:1]).to(self.args.device)  # all workers call the model together
            values = self._values_of(self.model, batch)
            ends = values[batch.rows.bincount().cumsum(0) - 1]
            part = NodeValues(*(each.cpu().numpy() for each in (values, batch.q, ends, batch.correct)))
            found += [part] if own else []
        return summarize_nodes(gather_object(found))

    def _refuse_nan(self, loss: Tensor, by_row: Tensor, ids: list[str]) -> None:
        """Raise on all workers if the loss of one is not finite."""
        if bool(self.accelerator.gather(loss.detach().reshape(1)).isfinite().all()):
            return
        finite = by_row.isfinite().tolist()
        suspects = [name for name, good in zip(ids, finite, strict=True) if not good]
        if not bool(loss.isfinite()) and not suspects:
            suspects = ids
        raise TuneDivergedError("loss", self.state.global_step + 1, gather_object(suspects))

    def _note(self, losses: PairLosses, values: Tensor, q: Tensor) -> None:
        """Add to the metrics that TRL averages until it logs."""
        mode = "train" if self.model.training else "eval"
        by_pair = torch.stack([*losses, *values.view(2, -1), *q.view(2, -1)], dim=1).detach()
        gathered = self.accelerator.gather_for_metrics(by_pair).float()
        for name, column in zip(PairLosses._fields, gathered.T, strict=False):
            self._metrics[mode][name].append(column.mean().item())
        if mode == "eval":
            self._predictions.add(gathered[:, len(losses) :].cpu().numpy())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # adds TRL's metrics to `logs`
        if "loss" not in logs and "eval_loss" not in logs:
            return
        step = self.state.global_step
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise TuneDivergedError("gradient norm", step, [])
        metrics = named_metrics(logs, self._config.loss == "dpo")
        if "loss" in logs:
            self._row = {"step": step, **metrics, **self._speed(step)}
        else:
            self._row = {"step": step, **self._row, **metrics, **self._predictions.summary()}
            self._predictions = ValuePredictions()
        if self.is_world_process_zero():
            self._report(self._row)

    def _speed(self, step: int) -> dict[str, float]:
        if not self._begin[1]:  # the first step, whose time is not known, in this process
            self._begin = (time.monotonic(), step)
        steps, seconds = step - self._begin[1], time.monotonic() - self._begin[0]
        per_step = seconds / steps if steps else 0.0
        return {"seconds_per_step": per_step, "seconds_left": (self.state.max_steps - step) * per_step}

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the weights of a checkpoint are saved with the state of the optimizer."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save_state(Path(output_dir) / STATE, self.policy_value.policy, self._adamw())
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do before there is an optimizer."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        load_state(Path(checkpoint) / STATE, self.policy_value.policy, self._adamw(), no_dist=not dist.is_initialized())
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))
        for group, lr in zip(self._adamw().param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = lr

    def _adamw(self) -> torch.optim.Optimizer:
        """The optimizer without the wrapper of accelerate."""
        optimizer: Any = self.optimizer
        return getattr(optimizer, "optimizer", optimizer)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self._checkpoints.upload(self.state.global_step)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._checkpoints.commit(self.state.global_step)

    def whole_weights(self) -> dict[str, Tensor]:
        """Unsharded weights under the names of `PolicyValueModel`. All workers call it together."""
        return {
            f"head.{name.removeprefix(f'{HEAD}.')}" if name.startswith(f"{HEAD}.") else f"policy.{name}": weight
            for name, weight in whole_weights(self.policy_value.policy).items()
        }
