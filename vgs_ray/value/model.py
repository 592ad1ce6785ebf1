"""The value model: a decoder backbone and a small head that predicts, at each token, the class of the finished answer.

In: a saved value model, or a causal language model to start from. Out: `ValueModel`, saved in the layout of the released
DeepSeek-VM-1.5B (`model.*`, `score.0.weight`, `score.2.weight`). `vgs_ray.value.vllm_plugin` serves this layout.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgs_ray.value.weights import check_shapes, computed_modules, is_computed, read_config

ARCHITECTURE = "VgsValueModel"
"""Architecture in config.json, by which vLLM finds the implementation (`vgs_ray.value.vllm_plugin`)."""
CORRECT = 1
"""Index of the class correct; the classes are incorrect, correct, incomplete."""


def build_head(hidden_size: int, num_labels: int, dtype: torch.dtype | None = None) -> nn.Sequential:
    """Two linear layers without biases, named `score.0.weight` and `score.2.weight` in a checkpoint."""
    return nn.Sequential(
        nn.Linear(hidden_size, hidden_size, bias=False, dtype=dtype),
        nn.ReLU(),
        nn.Linear(hidden_size, num_labels, bias=False, dtype=dtype),
    )


def correct_probs(logits: Tensor) -> Tensor:
    """P(correct), float32 (...), from logits (..., num_labels): softmax over the classes, or the sigmoid of a single output."""
    logits = logits.float()
    return logits[..., 0].sigmoid() if logits.shape[-1] == 1 else logits.softmax(-1)[..., CORRECT]


class ValueModel(nn.Module):
    """P(class of the finished answer | tokens so far), at every token (arXiv 2505.17373, section 3).

    Args:
        backbone: a transformers decoder without a language-model head.
        num_labels: number of classes, where index 1 is correct; or 1 for a logit of P(correct).
        dropout: dropout before the head, in training.
    """

    def __init__(self, backbone: Any, num_labels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = backbone.config
        self.num_labels = num_labels
        self.model = backbone
        self.dropout = nn.Dropout(dropout)
        self.score = build_head(self.config.hidden_size, num_labels, backbone.dtype)

    @classmethod
    def from_pretrained(
        cls, path_or_id: str | Path, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None
    ) -> ValueModel:
        """Load a saved value model, or one that shares its lower layers with a policy (folder, URL or hub id).

        Buffers that the model computes itself, such as rotary frequencies saved by older releases of transformers, are ignored.

        Raises:
            ValueError: the architecture is not supported, weights do not fit (for example the head is missing), or the folder is
                incomplete or holds PyTorch pickles.
        """
        from transformers import AutoModel
        from transformers.initialization import no_init_weights

        from vgs_ray.models.folder import local_folder
        from vgs_ray.value.shared import read_value_model

        folder = local_folder(path_or_id)
        config, stored = read_value_model(folder)
        with no_init_weights():
            backbone = AutoModel.from_config(config, dtype=dtype, attn_implementation=attn_implementation)
            model = cls(backbone, config.num_labels, getattr(config, "classifier_dropout", None) or 0.0)
        computed = computed_modules(model)
        weights = {name: tensor for name, tensor in stored.items() if not is_computed(name, computed)}
        check_shapes(folder, {name: tuple(value.shape) for name, value in model.state_dict().items()}, weights)
        model.load_state_dict(weights)
        return model.eval()

    @classmethod
    def from_backbone(
        cls,
        path_or_id: str | Path,
        num_labels: int = 3,
        dropout: float = 0.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str | None = None,
        attention_dropout: float = 0.0,
    ) -> ValueModel:
        """Start from a causal language model (folder, URL or hub id) and a new head, initialized from `seed`.

        Raises:
            ValueError: the architecture is not supported, or there is no config.json.
        """
        from transformers import AutoModel

        from vgs_ray.models.folder import local_folder

        folder = local_folder(path_or_id)
        config = read_config(folder)
        config.attention_dropout, config.classifier_dropout = attention_dropout, dropout
        backbone = AutoModel.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=attn_implementation
        )
        model = cls(backbone, num_labels, dropout)
        generator = torch.Generator().manual_seed(seed)
        for weight in model.score.parameters():
            # The scale depends on the hidden size: 0.015 for 1536, close to Qwen2's 0.02, and larger for small models.
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        return model

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **attention: Any,
    ) -> Tensor:
        """Last hidden states of the backbone, (batch, length, hidden).

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), 0 on padding.
            position_ids: (batch, length); restart at 0 for each sequence packed into a row.
            attention: further arguments of the attention implementation, such as flash attention's sequence bounds.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
            **attention,
        )
        return output.last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., num_labels) from hidden states (..., hidden)."""
        return self.score(self.dropout(hidden))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        chosen: Tensor | None = None,
        **attention: Any,
    ) -> Tensor:
        """Logits after each token, (batch, length, num_labels), or only after the tokens `chosen`, (T, num_labels).

        Args:
            chosen: (T,) int, places in the flattened (batch, length) on which to run the head.
            input_ids, attention_mask, position_ids, attention: as in `hidden_states`.
        """
        states = self.hidden_states(input_ids, attention_mask, position_ids, **attention)
        return self.head(states if chosen is None else states.flatten(0, 1).index_select(0, chosen))

    @torch.no_grad()
    def success_probs(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """P(correct) after each token: (batch, length) float32 in [0, 1]."""
        return correct_probs(self(input_ids, attention_mask))

    def save_pretrained(
        self, path: str | Path, state_dict: dict[str, Tensor] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write config.json and safetensors in the released layout.

        Args:
            path: folder, created if it is missing.
            state_dict: unsharded weights, if the module itself holds shards.
            dtype: type of the saved weights, float32 or bfloat16.
        """
        from huggingface_hub import save_torch_state_dict

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.config)
        config.architectures = [ARCHITECTURE]
        config.num_labels = self.num_labels
        config.classifier_dropout = self.dropout.p
        config.dtype = dtype
        config.save_pretrained(folder)
        whole = state_dict or self.state_dict()
        weights = {name: value.detach().to("cpu", dtype) for name, value in whole.items()}
        save_torch_state_dict(weights, folder)
