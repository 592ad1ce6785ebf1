"""Trainer of the policy of word problems: transformers' Trainer with a loss on the tokens of solutions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from vgs_ray.models import model_path
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints

if TYPE_CHECKING:
    from vgs_ray.words.train_policy import Settings


IGNORED = -100
ROUNDED_TO = 32
"""Lengths of batches, and numbers of logits, are multiples of this. On a CPU, tensors of all sizes fragment the memory: a run of
SmolLM2-135M needed over 18 GB."""
POOL = 32
"""Forward passes whose examples are sorted by length together."""


class SolutionTrainer(Trainer):
    """Trains on the mean cross-entropy of all tokens with a label.

    Only these tokens get logits. With a vocabulary of 49,152, logits of all tokens are half of the work of a model of 135M.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
        places = (labels >= 0).nonzero().squeeze(1)
        more = -len(places) % ROUNDED_TO
        targets = torch.nn.functional.pad(labels[places], (0, more), value=IGNORED)
        with self.accelerator.autocast():
            states = model.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state.flatten(0, 1)
            logits = model.lm_head(states[torch.nn.functional.pad(places, (0, more))])
        total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return total / num_items_in_batch


class CommitCheckpoint(TrainerCallback):
    """Marks a checkpoint as complete, and removes old ones."""

    def __init__(self, checkpoints: TuneCheckpoints) -> None:
        self.checkpoints = checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.checkpoints.commit(state.global_step)


def sampling_order(lengths: Sequence[int], settings: Settings) -> list[int]:
    """The order of the examples of all passes.

    Those of one forward pass have similar lengths, which saves padding. Forward passes are in random order: transformers'
    `group_by_length` has long runs of batches of one length, here of one kind of problem, and the loss rises with each change.

    Args:
        lengths: of the examples.
        settings: number of passes, size of a forward pass, and seed.
    """
    rng, size, order = random.Random(settings.seed), settings.micro_batch, list[int]()
    while len(order) < round(settings.epochs * len(lengths)):
        shuffled = rng.sample(range(len(lengths)), len(lengths))
        pools = batched(shuffled, POOL * size)
        batches = [each for pool in pools for each in batched(sorted(pool, key=lengths.__getitem__), size)]
        order += [at for each in rng.sample(batches, len(batches)) for at in each]
    return order[: round(settings.epochs * len(lengths))]


def batched(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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
        num_train_epochs=1,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch,
        train_sampling_strategy="sequential",
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
    order = sampling_order([len(each["input_ids"]) for each in examples], settings)
    model = AutoModelForCausalLM.from_pretrained(
        model_path(settings.init), dtype=torch.float32, attn_implementation=attention
    )
    return SolutionTrainer(
        model,
        arguments,
        DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=ROUNDED_TO),
        [examples[at] for at in order],
        processing_class=tokenizer,
        callbacks=[CommitCheckpoint(checkpoints)],
    )
