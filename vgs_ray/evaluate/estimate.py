"""Estimate the cost of a recipe before it runs: rows, tokens, bytes, FLOPs and GPU-hours of each stage.

FLOPs are counted by `forward_flops`. A training step costs three forward passes (arXiv 2001.08361), fewer if some
layers are not trained. Roll-outs of one roll-in share its prefill, so the prefill is counted once, up to the latest cut. `PAPER`
has the run of arXiv 2505.17373 for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vgs_ray.config import Beam, Evaluate, Mcts, Recipe, RollOut
from vgs_ray.data.splits import split_sizes
from vgs_ray.search.flops import forward_flops
from vgs_ray.search.model_size import NO_MODEL, ModelSize

RAW_SOURCE, RAW_PROBLEMS, KEPT_SHARE = "open-r1/OpenR1-Math-220k", 93_733, 0.527
"""The source of arXiv 2505.17373, its rows, and the share of them that the paper kept."""
ROLL_IN_SHARE, ROLL_OUT_SHARE, PROMPT_TOKENS = 0.85, 0.353, 150.0
HOPELESS_SHARE = 0.099
BENCHMARK_PROBLEMS = 30
BYTES_PER_TOKEN = 2.4
BYTES_PER_ROW = {
    "clean": 1500.0,
    "roll_in": 150.0,
    "roll_out": 150.0,
    "verify": 40.0,
    "label": 40.0,
    "trees": 2000.0,
    "pairs": 200.0,
    "evaluate": 2000.0,
}
"""Bytes of a row without its tokens, compressed by zstd. Used if the run folder has no rows to measure."""


class Means(NamedTuple):
    """Mean lengths in tokens (`roll_out` without whole roll-ins), shares of the roll-outs that get no label, and measured bytes
    per row by stage."""

    prompt: float
    roll_in: float
    roll_out: float
    unknown: float
    hopeless: float
    bytes_per_row: Mapping[str, float]


class Speed(NamedTuple):
    """Of one GPU: tokens/s that the reference policy generates, and FLOP/s of training and scoring. 0 means unknown."""

    tokens_per_s: float
    train_flops_per_s: float

    def generation(self, tokens: float) -> float | None:
        """Hours of one GPU; None if the speed is unknown."""
        return tokens / self.tokens_per_s / 3600 if self.tokens_per_s else None

    def training(self, flops: float) -> float | None:
        """Hours of one GPU; None if the speed is unknown."""
        return flops / self.train_flops_per_s / 3600 if self.train_flops_per_s else None


class StageCost(NamedTuple):
    """Cost of one stage. A number that does not apply or is unknown is None."""

    stage: str
    rows: int | None
    tokens: float | None = None
    size: float | None = None
    flops: float | None = None
    hours: float | None = None


# From arXiv 2505.17373 and its code, which state them except those in DERIVED.
PAPER = {
    "clean": StageCost("clean", 49_394),
    "roll_in": StageCost("roll_in", 14 * 49_394),
    "roll_out": StageCost("roll_out", 56 * 49_394, tokens=14.4e9),
    "verify": StageCost("verify", 56 * 49_394),
    "label": StageCost("label", 56 * 44_509, size=22.7e9),  # of OpenR1-VM, roll-ins repeated for each response
    "train": StageCost("train", 12_170 * 1024, tokens=5 * 35.7e9, flops=1.66e21, hours=3072),
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
    """Sizes of a recipe's models: the policies by name, and the backbone of the value model without an output layer."""

    policies: Mapping[str, ModelSize]
    value: ModelSize


def cut_means(config: RollOut, roll_in: float) -> tuple[float, float]:
    """Mean position of a cut and of the latest cut of a roll-in, for roll-ins of `roll_in` tokens.

    The distribution function of a cut is (x / length) ** a with a = 1 (uniform) or 1.5 (square root). That of the latest of k
    cuts has the exponent a * k. The mean of a distribution with exponent b is length * b / (b + 1).
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
) -> list[StageCost]:
    """The cost of each stage of a value model from roll-outs.

    Args:
        recipe: the configuration.
        problems: number of problems after cleaning. Those of the test split have no roll-ins.
        benchmark: number of problems of all benchmarks.
        means: mean lengths and shares.
        roll_in_models: the model of each roll-in of a problem.
        sizes: sizes of the models.
        speed: speed of one GPU.
    """
    cuts, whole = recipe.roll_out.cuts, int(recipe.roll_out.whole)
    cut, _ = cut_means(recipe.roll_out, means.roll_in)
    rolled = problems - split_sizes(problems, recipe.clean.validation, recipe.clean.test)[1]
    roll_ins = rolled * len(roll_in_models)
    roll_outs = roll_ins * (cuts + whole)
    completion = completion_tokens(recipe, means)
    answer = (cuts * (cut + means.roll_out) + whole * means.roll_in) / (cuts + whole)
    labels = round(roll_outs * (1 - means.unknown - means.hopeless * (1 - recipe.label.hopeless_share)))
    return [
        sized(StageCost("clean", problems), means, 0),
        _roll_in(recipe, rolled, means, roll_in_models, sizes, speed),
        _roll_out(recipe, roll_ins, means, sizes.policies[recipe.policy.model], speed),
        sized(StageCost("verify", roll_outs), means, 0),
        sized(StageCost("label", labels), means, completion if recipe.label.kind != "outcome" else 0),
        _train(recipe, labels, means.prompt + answer, sizes.value, speed),
        estimate_evaluation(recipe, benchmark, answer, means, sizes, speed),
    ]


def _roll_in(recipe: Recipe, rolled: int, means: Means, models: Sequence[str], sizes: Sizes, speed: Speed) -> StageCost:
    """The roll-ins of `rolled` problems. The reference policy's speed is scaled by the sizes of the models."""
    policies, reference, rows = sizes.policies, sizes.policies[recipe.policy.model], rolled * len(models)
    scaled = sum(rolled * means.roll_in * policies[name].params / reference.params for name in models)
    flops = sum(rolled * forward(policies[name], means.prompt + means.roll_in, 0) for name in models)
    cost = StageCost("roll_in", rows, rows * means.roll_in, None, flops, speed.generation(scaled))
    return sized(cost, means, means.prompt + means.roll_in)


def _roll_out(recipe: Recipe, roll_ins: int, means: Means, reference: ModelSize, speed: Speed) -> StageCost:
    """The completions of `roll_ins` roll-ins. Whole roll-ins are rows too, which nothing generates."""
    sampled, (cut, latest) = roll_ins * recipe.roll_out.cuts, cut_means(recipe.roll_out, means.roll_in)
    tokens, rows = sampled * means.roll_out, sampled + roll_ins * int(recipe.roll_out.whole)
    flops = min(sampled, roll_ins) * forward(reference, means.prompt + latest, 0)
    flops += sampled * forward(reference, means.roll_out, means.prompt + cut)
    cost = StageCost("roll_out", rows, tokens, None, flops, speed.generation(tokens))
    return sized(cost, means, completion_tokens(recipe, means))


def completion_tokens(recipe: Recipe, means: Means) -> float:
    """Mean tokens of a row of stage roll_out."""
    cuts, whole = recipe.roll_out.cuts, int(recipe.roll_out.whole)
    return (cuts * means.roll_out + whole * means.roll_in) / (cuts + whole)


def token_store_bytes(recipe: Recipe, costs: Sequence[StageCost], means: Means) -> float:
    """Uncompressed tokens, and values of tokens, that stage train copies to the disk of each node that trains."""
    rows = {cost.stage: cost.rows or 0 for cost in costs}
    completions = rows["roll_out"] + (rows["label"] if recipe.label.kind != "outcome" else 0)
    return 4 * (rows["roll_in"] * (means.prompt + means.roll_in) + completions * completion_tokens(recipe, means))


def _train(recipe: Recipe, labels: int, length: float, value: ModelSize, speed: Speed) -> StageCost:
    config = recipe.train
    sequences = config.steps * config.batch_size or config.epochs * labels
    flops = sequences * training_flops(config.trained_layers, length, value)
    return StageCost("train", sequences, sequences * length, None, flops, speed.training(flops))


def training_flops(trained_layers: int, length: float, value: ModelSize) -> float:
    """FLOPs of one training sequence: a forward pass, and twice as many for the layers that are trained; 0 trains all."""
    share = trained_layers / value.layers if trained_layers else 1.0
    return (1 + 2 * share) * forward(value, length, 0)


def estimate_evaluation(
    recipe: Recipe, benchmark: int, answer: float, means: Means, sizes: Sizes, speed: Speed
) -> StageCost:
    """The cost of all searches of stage evaluate, with `answer` tokens in a response. All blocks are scored."""
    config = recipe.evaluate
    searches = 2 + config.greedy + len(config.variants)
    responses = benchmark * (config.samples + config.beam.budget + config.greedy + _variant_responses(config, answer))
    value = sizes.value
    if recipe.uses_own_head("evaluate"):
        own = recipe.train.trained_layers if recipe.policy_stage == "train" else 0
        value = ModelSize(value.params * own // value.layers, own, value.hidden) if own else NO_MODEL
    scored = responses * forward(value, answer, means.prompt)
    flops = responses * forward(sizes.policies[recipe.policy.model], answer, means.prompt) + scored
    parts = speed.generation(responses * answer), speed.training(scored)
    hours = None if None in parts else sum(part or 0.0 for part in parts)
    return sized(StageCost("evaluate", searches * benchmark, responses * answer, None, flops, hours), means, 0)


def _variant_responses(config: Evaluate, answer: float) -> float:
    """Blocks of all variants, in whole responses."""
    responses = 0.0
    for variant in config.variants:
        shape = variant.shape
        if isinstance(shape, Beam):
            responses += shape.budget
        elif isinstance(shape, Mcts):
            responses += shape.simulations * shape.width * block_tokens(shape, answer) / answer
        else:
            responses += shape.width
    return responses


def block_tokens(shape: Mcts, answer: float) -> float:
    """Tokens of a block of a tree search if an answer of `answer` tokens is as deep as the tree may be."""
    return min(float(shape.block), answer / shape.depth)


def sized(cost: StageCost, means: Means, tokens_per_row: float) -> StageCost:
    """Add the size on disk, from the measured bytes per row or from the defaults."""
    default = BYTES_PER_ROW[cost.stage] + BYTES_PER_TOKEN * tokens_per_row
    return cost._replace(size=(cost.rows or 0) * means.bytes_per_row.get(cost.stage, default))


def forward(size: ModelSize, tokens: float, before: float) -> float:
    """`forward_flops` of mean lengths."""
    return forward_flops(size, round(tokens), round(before))
