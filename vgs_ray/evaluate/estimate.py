"""What a recipe costs before it runs: rows, tokens, bytes, FLOPs and GPU-hours of each stage. Pure.

In: a recipe, mean lengths and sizes of its models. Out: one `Cost` a stage, and the paper's run to compare with.

FLOPs are those of `flops.forward_flops`; training is three forward passes (arXiv 2001.08361). Roll-outs of one roll-in share
its prefill, so it is counted once, up to the latest cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vgs_ray.config import Recipe, RollOut
from vgs_ray.data.splits import split_sizes
from vgs_ray.search.flops import ModelSize, forward_flops

RAW_PROBLEMS, KEPT_SHARE = 93_733, 0.527
ROLL_IN_SHARE, ROLL_OUT_SHARE, PROMPT_TOKENS = 0.85, 0.353, 150.0
HOPELESS_SHARE = 0.099
BENCHMARK_PROBLEMS = 30
BYTES_A_TOKEN = 2.4
BYTES_A_ROW = {"clean": 1500.0, "roll_in": 150.0, "roll_out": 150.0, "verify": 40.0, "label": 40.0, "evaluate": 2000.0}
"""Without the tokens; zstd. The run folder's own values replace these where there is one."""


class Means(NamedTuple):
    """Mean lengths in tokens, shares of the roll-outs that get no label, and bytes of a row by stage where measured."""

    prompt: float
    roll_in: float
    roll_out: float
    unknown: float
    hopeless: float
    bytes_a_row: Mapping[str, float]


class Speed(NamedTuple):
    """Of one GPU: generated tokens/s of the reference policy, and FLOP/s of training and scoring; 0 is unknown."""

    tokens_per_s: float
    train_flops_per_s: float

    def generation(self, tokens: float) -> float | None:
        """Hours of one GPU."""
        return tokens / self.tokens_per_s / 3600 if self.tokens_per_s else None

    def training(self, flops: float) -> float | None:
        """Hours of one GPU."""
        return flops / self.train_flops_per_s / 3600 if self.train_flops_per_s else None


class Cost(NamedTuple):
    """One stage. What it has none of is None."""

    stage: str
    rows: int | None
    tokens: float | None = None
    size: float | None = None
    flops: float | None = None
    hours: float | None = None


# From arXiv 2505.17373 and its code. A value in DERIVED is computed from those, not stated.
PAPER = {
    "clean": Cost("clean", 49_394),
    "roll_in": Cost("roll_in", 14 * 49_394),
    "roll_out": Cost("roll_out", 56 * 49_394, tokens=14.4e9),
    "verify": Cost("verify", 56 * 49_394),
    "label": Cost("label", 56 * 44_509, size=22.7e9),  # of OpenR1-VM, roll-ins repeated for each response
    "train": Cost("train", 12_170 * 1024, tokens=5 * 35.7e9, flops=1.66e21, hours=3072),
}
DERIVED = {
    ("roll_in", "rows"), ("roll_out", "rows"), ("verify", "rows"), ("label", "rows"), ("train", "rows"), ("train", "tokens"),
    ("train", "flops"), ("train", "hours"),
}  # fmt: skip

_QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
_SIZES = {
    "1.5B": (1536, 28, 12, 2, 8960, 151_936),
    "7B": (3584, 28, 28, 4, 18_944, 152_064),
    "14B": (5120, 48, 40, 8, 13_824, 152_064),
    "32B": (5120, 64, 40, 8, 27_648, 152_064),
}
_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"
)  # fmt: skip
KNOWN_CONFIGS = {
    f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{name}": _QWEN | dict(zip(_FIELDS, values, strict=True))
    for name, values in _SIZES.items()
}


class Sizes(NamedTuple):
    """Models of a recipe: the policies by name, and the backbone of the value model (no output layer)."""

    policies: Mapping[str, ModelSize]
    value: ModelSize


def cut_means(config: RollOut, roll_in: float) -> tuple[float, float]:
    """Mean position of a cut and mean of a roll-in's latest cut, for roll-ins of `roll_in` tokens.

    A cut's distribution function is (x / length) ** a with a = 1 (uniform) or 1.5 (square root), so the latest of k has the
    exponent a * k; the mean of an exponent b is b / (b + 1).
    """
    power = 1.5 if config.positions == "sqrt" else 1.0
    latest = power * (config.cuts if config.scheme == "cuts" else 1)
    return roll_in * power / (power + 1), roll_in * latest / (latest + 1)


def estimate(
    recipe: Recipe,
    problems: int,
    benchmark: int,
    means: Means,
    roll_in_models: Sequence[str],
    sizes: Sizes,
    speed: Speed,
) -> list[Cost]:
    """The cost of each stage.

    Args:
        recipe: the configuration.
        problems: problems after clean; those of the test split cost nothing more.
        benchmark: problems of the benchmark.
        means: lengths and shares.
        roll_in_models: the model of each roll-in of a problem.
        sizes: of the models.
        speed: of one GPU.
    """
    policies, reference = sizes.policies, sizes.policies[recipe.policy.model]
    cut, latest = cut_means(recipe.roll_out, means.roll_in)
    rolled = problems - split_sizes(problems, recipe.clean.validation, recipe.clean.test)[1]
    roll_ins = rolled * len(roll_in_models)
    roll_outs = roll_ins * recipe.roll_out.cuts
    labels = round(roll_outs * (1 - means.unknown - means.hopeless * (1 - recipe.label.hopeless_share)))
    scaled = sum(rolled * means.roll_in * policies[m].params / reference.params for m in roll_in_models)
    costs = [
        _sized(Cost("clean", problems), means, 0),
        _sized(
            Cost(
                "roll_in", roll_ins, roll_ins * means.roll_in,
                flops=sum(rolled * _forward(policies[m], means.prompt + means.roll_in, 0) for m in roll_in_models),
                hours=speed.generation(scaled),
            ), means, means.prompt + means.roll_in,
        ),
        _sized(
            Cost(
                "roll_out", roll_outs, roll_outs * means.roll_out,
                flops=roll_ins * _forward(reference, means.prompt + latest, 0)
                + roll_outs * _forward(reference, means.roll_out, means.prompt + cut),
                hours=speed.generation(roll_outs * means.roll_out),
            ), means, means.roll_out,
        ),
        _sized(Cost("verify", roll_outs), means, 0),
        _sized(Cost("label", labels), means, means.roll_out if recipe.label.kind == "token_values" else 0),
    ]  # fmt: skip
    whole = means.prompt + cut + means.roll_out
    return [*costs, _train(recipe, whole, sizes.value, speed), _evaluate(recipe, benchmark, means, sizes, speed)]


def _train(recipe: Recipe, length: float, value: ModelSize, speed: Speed) -> Cost:
    sequences = recipe.train.steps * recipe.train.batch_size
    flops = 3 * sequences * _forward(value, length, 0)
    return Cost("train", sequences, sequences * length, None, flops, speed.training(flops))


def _evaluate(recipe: Recipe, benchmark: int, means: Means, sizes: Sizes, speed: Speed) -> Cost:
    """Two searches a problem: independent samples, and the beam whose width is its budget; both are scored."""
    config = recipe.evaluate
    responses = benchmark * (config.samples + config.beam.budget)
    answer = cut_means(recipe.roll_out, means.roll_in)[0] + means.roll_out
    scored = responses * _forward(sizes.value, answer, means.prompt)
    flops = responses * _forward(sizes.policies[recipe.policy.model], answer, means.prompt) + scored
    parts = speed.generation(responses * answer), speed.training(scored)
    hours = None if None in parts else sum(part or 0.0 for part in parts)
    return _sized(Cost("evaluate", 2 * benchmark, responses * answer, None, flops, hours), means, 0)


def _sized(cost: Cost, means: Means, tokens_a_row: float) -> Cost:
    """With the size on disk, from measured bytes of a row or from the defaults."""
    default = BYTES_A_ROW[cost.stage] + BYTES_A_TOKEN * tokens_a_row
    return cost._replace(size=(cost.rows or 0) * means.bytes_a_row.get(cost.stage, default))


def _forward(size: ModelSize, tokens: float, before: float) -> float:
    return forward_flops(size, round(tokens), round(before))
