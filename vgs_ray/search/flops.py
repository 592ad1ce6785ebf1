"""FLOPs of a search, from the token counts in its tree.

In: a `Tree` and the sizes of both models, read from their config.json without torch. Out: tokens and FLOPs by group.

To forward one token, a decoder multiplies each weight once. Attention reads a context of `context` positions, the token's own
included, once for the scores and once for the weighted sum (arXiv 2001.08361, table 1, with exact contexts):

    FLOPs = 2 * params + 4 * layers * hidden * context

For each block, the policy forwards its tokens and the uncached part of its prefix, and the value model forwards the tokens that
it needs to score it. Layers that belong to a value head of the policy forward what the policy forwards. The first group to run
pays for the prompt. A smaller budget would pay for it too, so its cost is also given separately.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vgs_ray.models import OWN_HEAD, RANDOM, model_path
from vgs_ray.models.folder import CONFIG, VALUE_HEAD, on_this_machine
from vgs_ray.search.model_size import NO_MODEL, ModelSize, size_from_config
from vgs_ray.search.tree import ROOT, Node, Tree


class ModelSizes(NamedTuple):
    """Sizes of the models of a search.

    Attributes:
        policy: the policy.
        value: the model that scores given tokens: a value model, or the policy with its value head.
        head: layers that belong to the value head of the policy alone. They forward each token that the policy forwards.
    """

    policy: ModelSize
    value: ModelSize
    head: ModelSize = NO_MODEL


class Cost(NamedTuple):
    """Tokens and FLOPs of a search or a part of it.

    Attributes:
        generated: tokens that the policy generated.
        scored: tokens that the value model forwarded.
        policy_flops, value_flops: floating-point operations of each model; the layers of a value head are in `value_flops`.
        prefilled: prefix tokens that the policy forwarded, because they were not cached.
    """

    generated: float = 0.0
    scored: float = 0.0
    policy_flops: float = 0.0
    value_flops: float = 0.0
    prefilled: float = 0.0

    @property
    def flops(self) -> float:
        return self.policy_flops + self.value_flops


def sum_costs(costs: Sequence[Cost]) -> Cost:
    """Sum the costs field by field."""
    return Cost(*map(sum, zip(*costs, strict=True))) if costs else Cost()


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """Average the costs field by field; there must be at least one."""
    return Cost(*(part / len(costs) for part in sum_costs(costs)))


def model_sizes(policy: str, scorer: str) -> ModelSizes:
    """Sizes of both models of a search, from their names in a recipe. The config.json of a hub id is downloaded.

    A linear value head of the policy costs nothing that counts. For given tokens, the policy runs too.

    Raises:
        ValueError: a model is not a Qwen2, Qwen3 or Llama model.
    """
    size = model_size(_config_json(policy))
    if scorer == OWN_HEAD:
        head = _head_size(policy)
        return ModelSizes(size, ModelSize(size.params + head.params, size.layers + head.layers, size.hidden), head)
    return ModelSizes(size, NO_MODEL if scorer == RANDOM else model_size(_config_json(scorer)))


def _config_json(model: str, name: str = CONFIG) -> Path:
    """A configuration of a model: `name` in its folder, or a copy of the file of a hub id."""
    from huggingface_hub import hf_hub_download

    path = on_this_machine(model_path(model), weights=False)
    return Path(path) / name if Path(path).is_dir() else Path(hf_hub_download(path, name))


def _head_size(policy: str) -> ModelSize:
    """Size of the layers that belong to the value head of a policy."""
    head = json.loads(_config_json(policy, f"{VALUE_HEAD}/{CONFIG}").read_text())
    if not head.get("layers"):
        return NO_MODEL
    config = json.loads(_config_json(policy).read_text())
    size = size_from_config(config | {"num_hidden_layers": head["layers"], "architectures": []})
    hidden = config["hidden_size"]
    return size._replace(params=size.params + hidden * (hidden + head["num_labels"]))  # it runs for each token too


def model_size(config_json: str | Path) -> ModelSize:
    """Size of a Qwen2, Qwen3 or Llama model, from its config.json or the folder that contains it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file lacks a required field.
    """
    path = Path(config_json)
    path = path / "config.json" if path.is_dir() else path
    try:
        return size_from_config(json.loads(path.read_text()))
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error}; FLOPs are counted for Qwen2, Qwen3 and Llama models only: use one of those"
        ) from None


def forward_flops(size: ModelSize, tokens: int, before: int) -> float:
    """FLOPs to forward `tokens` tokens after `before` cached tokens."""
    contexts = tokens * before + tokens * (tokens + 1) / 2
    return 2.0 * size.params * tokens + 4.0 * size.layers * size.hidden * contexts


def block_flops(policy: ModelSize, before: int, tokens: int, prefilled: int) -> float:
    """FLOPs to generate `tokens` tokens after a prefix of `before` tokens, of which `prefilled` were not cached."""
    return forward_flops(policy, prefilled + tokens, before - prefilled)


def score_flops(value: ModelSize, tokens: int, scored: int) -> float:
    """FLOPs to score `tokens` tokens, of which `scored` were not cached."""
    # A value model with another vocabulary may forward more tokens than the policy's tokenizer counts.
    return forward_flops(value, scored, max(tokens - scored, 0))


class TreeCosts(NamedTuple):
    """Cost of each group of a tree, and of parts of the prompt.

    Attributes:
        prompt: to forward the prompt once.
        groups: of each group, as the engines counted it.
        cached: to forward the part of the prompt that was cached before the search, by another search of the same problem. A
            search on its own would forward it too.
    """

    prompt: Cost
    groups: dict[int, Cost]
    cached: Cost


def tree_costs(tree: Tree, policy: ModelSize, value: ModelSize, head: ModelSize = NO_MODEL) -> TreeCosts:
    """Cost of each group. The prompt's cost includes the value model only if a block was scored."""
    sizes, nodes, length = ModelSizes(policy, value, head), tree.nodes[1:], len(tree.prompt)
    firsts = [node for node in nodes if node.parent == ROOT]
    scored = [node for node in firsts if node.scored]
    groups: dict[int, list[Cost]] = {}
    for node in nodes:
        groups.setdefault(node.group, []).append(_node_cost(tree, node, sizes))
    # Of the blocks after the prompt, one forwarded what was not cached before the search.
    cached = min((length - node.prefilled for node in firsts), default=0)
    unread = min((length + len(node.tokens) - node.scored for node in scored), default=0)
    return TreeCosts(
        _prompt_cost(length, length if any(node.scored for node in nodes) else 0, sizes),
        {group: sum_costs(costs) for group, costs in sorted(groups.items())},
        _prompt_cost(max(cached, 0), min(max(unread, 0), length), sizes),
    )


def _prompt_cost(tokens: int, scored: int, sizes: ModelSizes) -> Cost:
    """Cost of the first tokens of a prompt, of which the value model forwards the first `scored`."""
    value = forward_flops(sizes.head, tokens, 0) if sizes.head.layers else forward_flops(sizes.value, scored, 0)
    return Cost(0, scored, forward_flops(sizes.policy, tokens, 0), value, tokens)


def tree_flops(tree: Tree, policy: ModelSize, value: ModelSize, head: ModelSize = NO_MODEL) -> float:
    """FLOPs of all models over the whole tree."""
    return sum_costs(list(tree_costs(tree, policy, value, head).groups.values())).flops


def _node_cost(tree: Tree, node: Node, sizes: ModelSizes) -> Cost:
    before, tokens = len(tree.prompt) + tree.start(node.id), len(node.tokens)
    policy, own = (block_flops(size, before, tokens, node.prefilled) for size in (sizes.policy, sizes.head))
    value = own + score_flops(sizes.value, before + tokens, node.scored)
    return Cost(tokens, node.scored, policy, value, node.prefilled)
