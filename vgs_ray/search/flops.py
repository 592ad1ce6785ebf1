"""FLOPs of a search, from the tokens that the engines counted for each block of its tree.

In: a `Tree` and the sizes of two models, read from their config.json without torch. Out: tokens and FLOPs by group.

Forwarding one token through a decoder multiplies each of its weights once, and its attention reads a context of
`context` positions, itself included, once for the scores and once for the sum (arXiv 2001.08361, table 1, plus exact
contexts):

    FLOPs = 2 * params + 4 * layers * hidden * context

A block costs the policy its tokens and what of its prefix was not cached, and the value model what it forwarded to score it. The
prompt is read by whoever comes first, so its cost is also known apart: a smaller budget would have paid it as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgs_ray.search.tree import Node, Tree


class ModelSize(NamedTuple):
    """What a token costs in one model.

    Attributes:
        params: weights that a token is multiplied with: all but the input embedding (a lookup); a language model's
            output layer counts, also when it shares the embedding's weights. A value head is run once a block, and
            is left out.
        layers: decoder layers.
        hidden: width of the attention's queries, heads times head size.
    """

    params: int
    layers: int
    hidden: int


NO_MODEL = ModelSize(0, 0, 0)
"""A scorer without a model."""


class ModelSizes(NamedTuple):
    """Of the two models of a search."""

    policy: ModelSize
    value: ModelSize


class Cost(NamedTuple):
    """Tokens and FLOPs of a part of a search.

    Attributes:
        generated: tokens that the policy wrote.
        scored: tokens that the value model forwarded.
        policy_flops, value_flops: floating-point operations of each.
    """

    generated: float = 0.0
    scored: float = 0.0
    policy_flops: float = 0.0
    value_flops: float = 0.0

    @property
    def flops(self) -> float:
        return self.policy_flops + self.value_flops


def total(costs: list[Cost]) -> Cost:
    """The sum, field by field."""
    return Cost(*map(sum, zip(*costs, strict=True))) if costs else Cost()


def model_size(config_json: str | Path) -> ModelSize:
    """Size of a Qwen2, Qwen3 or Llama model from its config.json, or from the folder that holds it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file lacks a field that the count needs.
    """
    path = Path(config_json)
    path = path / "config.json" if path.is_dir() else path
    config = json.loads(path.read_text())
    try:
        return size_of(config)
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error}: FLOPs are counted for Qwen2, Qwen3 and Llama configurations"
        ) from None


def size_of(config: Mapping[str, Any]) -> ModelSize:
    """The same from the values of a config.json; KeyError names a field that is missing."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    inner, vocabulary = config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, config.get("num_key_value_heads", heads) * head
    kind = config.get("model_type")
    biases = queries + 2 * keys if config.get("attention_bias", kind == "qwen2") else 0
    norms = 2 * hidden + (2 * head if kind == "qwen3" else 0)
    layer = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner + biases + norms
    causal = any("CausalLM" in name for name in config.get("architectures") or [])
    output = vocabulary * hidden if causal else 0
    return ModelSize(layers * layer + hidden + output, layers, queries)


def forward_flops(size: ModelSize, tokens: int, before: int) -> float:
    """FLOPs of forwarding `tokens` tokens that follow `before` cached ones."""
    contexts = tokens * before + tokens * (tokens + 1) / 2
    return 2.0 * size.params * tokens + 4.0 * size.layers * size.hidden * contexts


def block_flops(policy: ModelSize, before: int, tokens: int, prefilled: int) -> float:
    """FLOPs of writing `tokens` tokens after `before` others, of which `prefilled` were not cached."""
    return forward_flops(policy, prefilled + tokens, before - prefilled)


def score_flops(value: ModelSize, tokens: int, scored: int) -> float:
    """FLOPs of scoring `tokens` tokens, of which `scored` were not cached."""
    # A scorer with another vocabulary may forward more tokens than there are of the policy's.
    return forward_flops(value, scored, max(tokens - scored, 0))


class TreeCosts(NamedTuple):
    """What a tree cost by group, and what reading its prompt costs both models."""

    prompt: Cost
    groups: dict[int, Cost]


def tree_costs(tree: Tree, policy: ModelSize, value: ModelSize) -> TreeCosts:
    """Costs by group. The prompt's share of the value model is there only if something was scored."""
    nodes = tree.nodes[1:]
    prompt, scored = len(tree.prompt), any(node.scored for node in nodes)
    once = Cost(
        scored=prompt if scored else 0,
        policy_flops=forward_flops(policy, prompt, 0),
        value_flops=forward_flops(value, prompt, 0) if scored else 0.0,
    )
    groups: dict[int, list[Cost]] = {}
    for node in nodes:
        groups.setdefault(node.group, []).append(_node_cost(tree, node, policy, value))
    return TreeCosts(once, {group: total(costs) for group, costs in sorted(groups.items())})


def tree_flops(tree: Tree, policy: ModelSize, value: ModelSize) -> float:
    """FLOPs of both models for the whole tree."""
    return total(list(tree_costs(tree, policy, value).groups.values())).flops


def _node_cost(tree: Tree, node: Node, policy: ModelSize, value: ModelSize) -> Cost:
    before, tokens = len(tree.prompt) + tree.start(node.id), len(node.tokens)
    written = block_flops(policy, before, tokens, node.prefilled)
    return Cost(tokens, node.scored, written, score_flops(value, before + tokens, node.scored))
