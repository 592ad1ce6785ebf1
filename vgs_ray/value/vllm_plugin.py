"""The models of this project in vLLM. `register` runs in each of vLLM's processes, by the entry point `vllm.general_plugins`.

- `VgsValueModel`: vLLM's backbone, our head, and pooling of the last token. In: a folder written by `ValueModel.save_pretrained`.
  Out: class probabilities at the last token of a sequence.
- `VgsPolicy` with `SlotProcessor`: a policy whose value head runs in the same forward pass. In: a folder written by
  `PolicyValueModel.save_pretrained` or `vgs_ray.value.shared.save_shared`. Out: sampled tokens, and Q as the log-probability of
  the slot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from vgs_ray.models.folder import VALUE_HEAD, local_folder
from vgs_ray.value.head import HeadConfig, own_config, read_head
from vgs_ray.value.model import ARCHITECTURE, build_head, correct_probs
from vgs_ray.value.weights import computed_modules, is_computed

REWARD_ARCHITECTURE = "VgsRewardModel"
"""Architecture under which the engine loads classifiers of transformers."""
POLICY_ARCHITECTURE = "VgsPolicy"
"""Architecture under which the engine loads a policy with a value head."""

FAMILIES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}

SLOT_BASE, SLOT_SCALE = -300.0, 100.0
"""The log-probability of the slot is `SLOT_BASE + SLOT_SCALE * Q`: its probability underflows, so those of the other tokens stay
right."""


def register() -> None:
    """Register the architectures with vLLM; may be called more than once."""
    from vllm import ModelRegistry

    ours = {ARCHITECTURE: VgsValueModel, REWARD_ARCHITECTURE: VgsRewardModel, POLICY_ARCHITECTURE: VgsPolicy}
    for name, model in ours.items():
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
        self.model = _model_class(config, "Model")(
            vllm_config=vllm_config, prefix=f"{prefix}.model" if prefix else "model"
        )
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


class LinearHead(nn.Linear):
    """One linear layer and tanh on the policy's last hidden states; Q in [-1, 1]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1, dtype=torch.float32)

    def q_values(self, states: Tensor) -> Tensor:
        return self(states).squeeze(-1).tanh()


class LayeredHead(nn.Module):
    """The upper layers of a value model that shares the others with the policy. They have a KV cache of their own.

    Args:
        vllm_config: of the policy.
        head: its number of layers and outputs.
    """

    def __init__(self, vllm_config: Any, head: HeadConfig) -> None:
        from vllm.compilation.backends import set_model_tag
        from vllm.model_executor.models.utils import PPMissingLayer

        super().__init__()
        config = own_config(vllm_config.model_config.hf_config, head.layers)
        with set_model_tag(VALUE_HEAD):  # keeps its compiled code apart from the policy's
            self.model = _model_class(config, "Model")(
                vllm_config=vllm_config.with_hf_config(config), prefix=VALUE_HEAD
            )
        self.model.embed_tokens = PPMissingLayer()  # its input are states of the policy
        self.score = build_head(config.hidden_size, head.num_labels, torch.float32)

    def forward(self, states: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states (tokens, hidden) from those after the shared layers."""
        return self.model(None, positions, None, states)

    def q_values(self, states: Tensor) -> Tensor:
        return 2 * correct_probs(self.score(states)) - 1


class VgsPolicy(nn.Module):
    """A causal language model of vLLM with a value head, for a `PolicyValueModel` or a policy with a `LayeredHead`.

    With tensor parallelism, each rank has the whole linear head, and the rank that has the logits writes the value. Not
    supported: the V2 model runner, which has no custom logits processors (vLLM then chooses the V1 runner by itself), pipeline
    parallelism, LoRA and speculative decoding.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        model_config = vllm_config.model_config
        self.config = model_config.hf_config
        self.folder = local_folder(model_config.model)
        self.policy = _model_class(self.config, "ForCausalLM")(vllm_config=vllm_config, prefix=prefix)
        settings, self._head_weights = read_head(self.folder, self.config)
        if settings.layers:
            self.head: LinearHead | LayeredHead = LayeredHead(vllm_config, settings)
            # vLLM can return states between layers, for EAGLE-3.
            self.policy.set_aux_hidden_state_layers((self.config.num_hidden_layers - settings.layers,))
        else:
            self.head = LinearHead(self.config.hidden_size)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return self.policy.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of the policy, (tokens, hidden), or with those of its `LayeredHead`, (tokens, 2 * hidden)."""
        states = self.policy(input_ids, positions, intermediate_tensors, inputs_embeds)
        if isinstance(self.head, LinearHead):
            return states
        last, [shared] = states
        return torch.cat([last, self.head(shared, positions)], -1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits in float32 (rows, vocabulary), as the sampler needs them; that of the slot carries Q."""
        size = self.config.hidden_size
        logits = self.policy.compute_logits(hidden_states[:, :size])
        if logits is None:  # another rank has them
            return None
        logits, slot = logits.float(), self.config.value_slot
        logits[:, slot] = -torch.inf
        q = self.head.q_values(hidden_states[:, -size:].float())
        logits[:, slot] = logits.logsumexp(-1) + SLOT_BASE + SLOT_SCALE * q
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        from vllm.model_executor.models.utils import AutoWeightsLoader

        loaded = self.policy.load_weights(weights)
        head = AutoWeightsLoader(self.head).load_weights(self._head_weights.items())
        return {f"policy.{name}" for name in loaded} | {f"head.{name}" for name in head}


def _model_class(config: Any, kind: str) -> Any:
    models = import_module(f"vllm.model_executor.models.{config.model_type}")
    return getattr(models, FAMILIES[config.model_type] + kind)


class ForcedTokens(NamedTuple):
    """What `SamplingParams.extra_args` of a request asks of `SlotProcessor`.

    Attributes:
        ends: tokens after which the slot ends the sequence.
        length: number of tokens after which the slot ends the sequence; None for no limit.
        text: tokens to force before any is sampled, so that a given text gets its values.
    """

    ends: Collection[int] = ()
    length: int | None = None
    text: Sequence[int] = ()

    def after(self, output: Sequence[int], slot: int) -> int | None:
        """The token to force after `output`; None to sample one."""
        made = len(output)
        if made < len(self.text):
            return self.text[made]
        return slot if made == self.length or (made and output[-1] in self.ends) else None


class SlotProcessor(LogitsProcessor):
    """Ends sequences with the slot, and never samples it elsewhere.

    The log-probability of a token comes from the forward pass of the token before it. So a sequence ends one token late: the slot
    is forced after the last token, and its log-probability has the value there. vLLM takes log-probabilities before this.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.slot: int = vllm_config.model_config.hf_config.value_slot
        self.device = device
        self.requests: dict[int, tuple[ForcedTokens, Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        # `output` is the list to which vLLM appends each new token.
        process_dict_updates(
            self.requests, batch_update, lambda params, _, output: (ForcedTokens(**(params.extra_args or {})), output)
        )

    def apply(self, logits: Tensor) -> Tensor:
        logits[:, self.slot] = -torch.inf
        after = {row: forced.after(output, self.slot) for row, (forced, output) in self.requests.items()}
        rows = [row for row, token in after.items() if token is not None]
        if rows:
            tokens = torch.tensor([after[row] for row in rows], device=self.device)
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
        return logits
