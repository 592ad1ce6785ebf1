"""Trainer of the policy of word problems: transformers' Trainer with a loss on the tokens of solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from vgs_ray.models import model_path
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints

if TYPE_CHECKING:
    from vgs_ray.words.train_policy import Settings


class SolutionTrainer(Trainer):
    """Trains on the mean cross-entropy of all tokens with a label.

    Only these tokens get logits. With a vocabulary of 49,152, logits of all tokens are half of the work of a model of 135M.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"][:, 1:]
        chosen = labels >= 0
        with self.accelerator.autocast():
            states = model.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[:, :-1]
            logits = model.lm_head(states[chosen])
        total = torch.nn.functional.cross_entropy(logits.float(), labels[chosen], reduction="sum")
        return total / num_items_in_batch


class CommitCheckpoint(TrainerCallback):
    """Marks a checkpoint as complete, and removes old ones."""

    def __init__(self, checkpoints: TuneCheckpoints) -> None:
        self.checkpoints = checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.checkpoints.commit(state.global_step)


def solution_trainer(
    tokenizer: Any,
    examples: Sequence[dict[str, list[int]]],
    settings: Settings,
    checkpoints: TuneCheckpoints,
    every: int,
) -> SolutionTrainer:
    """Trainer of all weights of `settings.init`, in float32, that writes a checkpoint every `every` steps.

    Args:
        tokenizer: pads the batches.
        examples: input_ids, labels (-100: without a loss) and attention_mask of each sequence, of one length.
        settings: settings.
        checkpoints: folder of the checkpoints.
        every: steps.
    """
    arguments = TrainingArguments(
        output_dir=str(checkpoints.local),
        num_train_epochs=settings.epochs,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch,
        train_sampling_strategy="group_by_length",
        seed=settings.seed,
        bf16=settings.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_steps=every,
        logging_steps=5,
        report_to=[],
        disable_tqdm=True,
    )
    # On a CPU, the backward pass of torch's fused attention is slow: eager attention takes 15% less time a step.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model = AutoModelForCausalLM.from_pretrained(
        model_path(settings.init), dtype=torch.float32, attn_implementation=attention
    )
    return SolutionTrainer(
        model,
        arguments,
        DataCollatorForSeq2Seq(tokenizer),
        Dataset.from_list(list(examples)),
        processing_class=tokenizer,
        callbacks=[CommitCheckpoint(checkpoints)],
    )
