"""Throughput of stage roll_out against bare vLLM: python bench/rollout.py [--problems 1200] [--rounds 3].

Both use one engine with the same prompts, seeds, sampling and settings; the start of the engine is not counted. They run in
turns, so that other load on the machine slows down both. Out: generated tokens per second of each round, and the ratio of the
medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from pipelines.cli import parse
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.labels.sampling_requests import roll_out_requests


def bare(recipe: Recipe) -> float:
    """Generated tokens per second of one call of `vllm.LLM.generate` with all of the stage's requests."""
    import torch
    from vllm import LLM, SamplingParams

    import vgs_ray.engines.vllm  # noqa: F401  # sets the environment in which the stage's engines run
    from vgs_ray.engines.facts import end_tokens
    from vgs_ray.engines.vllm_arguments import engine_args
    from vgs_ray.models import model_path

    config = recipe.roll_out
    roll_ins = stage_table(recipe, "roll_in").read(["roll_in_id", "problem_id", "prompt", "tokens"]).to_pylist()
    rows = [row for roll_in in roll_ins for row in roll_out_requests(roll_in, recipe)]
    torch.set_num_threads(config.engine.threads or torch.get_num_threads())
    engine = LLM(**engine_args(model_path(recipe.policy.model), config.engine))
    ends = sorted(end_tokens(engine.llm_engine))
    params = [
        SamplingParams(
            temperature=config.sampling.temperature, top_p=config.sampling.top_p, max_tokens=row["max_tokens"],
            seed=row["seed"], stop_token_ids=ends, detokenize=False,
        )
        for row in rows
    ]  # fmt: skip
    start = time.perf_counter()
    outputs = engine.generate([{"prompt_token_ids": row["prefix"]} for row in rows], params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.perf_counter() - start)


def run(*command: str) -> str:
    completed = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if completed.returncode:
        sys.exit(completed.stdout + completed.stderr)
    return completed.stdout


def stage(recipe: Recipe, arguments: list[str]) -> float:
    """Generated tokens per second of the stage, from its manifest: without the start of Ray and the engine."""
    folder = stage_table(recipe, "roll_out").folder
    shutil.rmtree(folder, ignore_errors=True)
    run("-m", "pipelines.roll_out", *arguments)
    return json.loads((folder / "_stage.json").read_text())["counts"]["speed"]["tokens_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="sandbox")
    parser.add_argument("--problems", type=int, default=1200, help="raw problems")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", default="", help="internal: arguments of the run whose requests bare vLLM generates")
    options, extra = parser.parse_known_args()
    if options.bare:
        print(bare(parse("bench", json.loads(options.bare))))
        return
    with tempfile.TemporaryDirectory() as root:
        arguments = [options.recipe, "--root", root, "--clean.limit", str(options.problems), *extra]
        arguments += ["--roll-out.resources.replicas", "1"]
        recipe = parse("bench", arguments)
        for name in ("clean", "roll_in"):
            run("-m", f"pipelines.{name}", *arguments)
        rates: dict[str, list[float]] = {"stage": [], "bare": []}
        for round_number in range(1, options.rounds + 1):
            rates["stage"].append(stage(recipe, arguments))
            rates["bare"].append(float(run(__file__, "--bare", json.dumps(arguments)).split()[-1]))
            latest = {name: round(history[-1]) for name, history in rates.items()}
            print(
                f"round {round_number}: stage {latest['stage']:,} tokens/s, vllm.LLM.generate {latest['bare']:,} tokens/s",
                flush=True,
            )
        medians = {name: statistics.median(history) for name, history in rates.items()}
        rows = stage_table(recipe, "roll_out").count_rows()
        print(f"{rows:,} roll-outs, ratio of the medians {medians['stage'] / medians['bare']:.3f}")


if __name__ == "__main__":
    main()
