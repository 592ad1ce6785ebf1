"""The value model in vLLM: vLLM's backbone, our head, and pooling of the last token.

In: a folder written by `ValueModel.save_pretrained`. Out: class probabilities at the last token of a sequence.
vLLM calls `register` in each of its processes, through the entry point `vllm.general_plugins`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor, nn

from vgs_ray.value.model import ARCHITECTURE, build_head
from vgs_ray.value.weights import computed_modules, is_computed

REWARD_ARCHITECTURE = "VgsRewardModel"
"""Architecture under which the engine loads classifiers of transformers."""

BACKBONES = {"qwen2": "Qwen2Model", "qwen3": "Qwen3Model", "llama": "LlamaModel"}


def register() -> None:
    """Register the architectures with vLLM; may be called more than once."""
    from vllm import ModelRegistry

    for name, model in ((ARCHITECTURE, VgsValueModel), (REWARD_ARCHITECTURE, VgsRewardModel)):
        if name not in ModelRegistry.get_supported_archs():
            # The class and not its name: vLLM inspects a class given by name in a new process, which takes 10 s.
            ModelRegistry.register_model(name, model)


class VgsValueModel(nn.Module):
    """vLLM's implementation of the architecture `VgsValueModel`, with the interface of pooling models."""

    is_pooling_model: ClassVar[bool] = True
    default_seq_pooling_type: ClassVar[str] = "LAST"
    default_tok_pooling_type: ClassVar[str] = "ALL"

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        from vllm.model_executor.layers.pooler import DispatchPooler

        super().__init__()
        model_config = vllm_config.model_config
        config = model_config.hf_config
        models = import_module(f"vllm.model_executor.models.{config.model_type}")
        backbone = getattr(models, BACKBONES[config.model_type])
        self.model = backbone(vllm_config=vllm_config, prefix=f"{prefix}.model" if prefix else "model")
        self.score = self.head(config, model_config.head_dtype)
        # The pooler ends with a softmax over the classes.
        self.pooler = DispatchPooler.for_seq_cls(model_config.pooler_config, classifier=self.score)

    @staticmethod
    def head(config: Any, dtype: Any) -> nn.Module:
        """The layers after the backbone, with their names in a checkpoint."""
        return build_head(config.hidden_size, config.num_labels, dtype)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        from vllm.model_executor.models.utils import AutoWeightsLoader

        computed = computed_modules(self)
        stored = ((name, tensor) for name, tensor in weights if not is_computed(name, computed))
        return AutoWeightsLoader(self).load_weights(stored)


class VgsRewardModel(VgsValueModel):
    """A process reward model in the layout of transformers: one linear layer, with a bias for token classification."""

    @staticmethod
    def head(config: Any, dtype: Any) -> nn.Module:
        return nn.Linear(config.hidden_size, config.num_labels, bias=config.score_bias, dtype=dtype)
