"""The numbers of a Qwen2, Qwen3 or Llama model that FLOPs and memory depend on, from the values of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class ModelSize(NamedTuple):
    """The numbers of one model that FLOPs depend on.

    Attributes:
        params: weights that each token is multiplied with. The input embedding is not counted (a lookup). The output layer of a
            language model is, even if it is tied to the embedding. The head of a value model runs once for each block and is not
            counted.
        layers: number of decoder layers.
        hidden: width of the attention queries: heads * head size.
    """

    params: int
    layers: int
    hidden: int


NO_MODEL = ModelSize(0, 0, 0)
"""The size of a scorer without a model."""


def size_from_config(config: Mapping[str, Any]) -> ModelSize:
    """Size from the values of a config.json.

    Raises:
        KeyError: a required field is missing; the error names it.
    """
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
