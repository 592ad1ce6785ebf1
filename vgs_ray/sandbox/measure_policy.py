r"""Measure the accuracy of a sandbox policy without search: single samples, pass@n and majority votes.

In: the folder of a policy. Out: one line of numbers over benchmark problems, sampled with transformers at temperature 1.
`python -m vgs_ray.sandbox.measure_policy vgs_ray/sandbox/policies/ref --problems 100`
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from vgs_ray.sandbox.rows import BENCHMARK_SEED, benchmark_rows

BOX = re.compile(r"</think>.*\\boxed\{(?:(\d+)|\\frac\{(\d+)\}\{(\d+)\})\}$", re.DOTALL)


def boxed_value(text: str) -> Fraction | None:
    """The number in the final box. None if the text is unfinished or malformed."""
    box = BOX.search(text)
    if not box:
        return None
    whole, top, bottom = box.groups()
    return Fraction(int(whole or top), int(bottom or 1)) if bottom != "0" else None


@torch.inference_mode()
def sample(model: PreTrainedModel, prefixes: Sequence[list[int]], longest: int, batch: int = 400) -> list[list[int]]:
    """Sample one completion for each prefix at temperature 1, without its end-of-text token."""
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    order = sorted(range(len(prefixes)), key=lambda index: len(prefixes[index]))  # little padding within a batch
    completions: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(prefixes[index]) for index in chosen)
        rows = [[pad] * (width - len(prefixes[index])) + prefixes[index] for index in chosen]
        inputs = torch.tensor(rows)
        out = model.generate(
            input_ids=inputs,
            attention_mask=inputs.ne(pad).long(),
            max_new_tokens=longest,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        for index, row in zip(chosen, out[:, width:].tolist(), strict=True):
            completions[index] = [token for token in row if token not in (pad, eos)]
    return [completions[index] for index in range(len(prefixes))]


def measure_policy(folder: Path, problems: int, samples: int, longest: int) -> dict[str, float]:
    """Sample every benchmark problem several times; return accuracies and lengths."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = list(benchmark_rows(problems, BENCHMARK_SEED))
    prompts = [f"<|user|>{row['problem']}<|assistant|><think>" for row in rows for _ in range(samples)]
    completions = sample(model, [tokenizer.encode(prompt) for prompt in prompts], longest)
    values = [boxed_value(tokenizer.decode(completion)) for completion in completions]
    gold = [boxed_value(f"</think>\\boxed{{{row['answer']}}}") for row in rows]
    groups = [values[start : start + samples] for start in range(0, len(values), samples)]
    totals = {
        "single": sum(value == right for group, right in zip(groups, gold, strict=True) for value in group),
        "incomplete": sum(value is None for value in values),
        "mean_tokens": sum(map(len, completions)),
    }
    result = {name: total / len(values) for name, total in totals.items()}
    result[f"pass@{samples}"] = sum(right in group for group, right in zip(groups, gold, strict=True)) / problems
    for size in (4, 8, 16):
        votes = [Counter(value for value in group[:size] if value is not None).most_common(1) for group in groups]
        right = sum(bool(vote) and vote[0][0] == answer for vote, answer in zip(votes, gold, strict=True))
        result[f"majority@{size}"] = right / problems
    return result


def main() -> None:
    """Print one line of numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--longest", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    began = time.monotonic()
    result = measure_policy(args.folder, args.problems, args.samples, args.longest)
    print(" ".join(f"{name} {value:.3f}" for name, value in result.items()), f"({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
