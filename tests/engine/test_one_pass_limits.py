"""The engine that is policy and value in one: architectures, and sequences of the longest length."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from headed import WARM, OnePass, add_head, add_layers
from tiny import TINY_ENGINE, some_tokens

from vgs_ray.config import Engine
from vgs_ray.engines import build_engines
from vgs_ray.models import OWN_HEAD
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel

SLOT = 5


@pytest.mark.parametrize(
    ("name", "layers"), [("Qwen2", 0), ("Qwen3", 0), ("Llama", 0), ("Qwen2", 2), ("Qwen3", 1), ("Llama", 1)]
)
def test_architectures_and_limits_of_length(name: str, layers: int, tmp_path: Path) -> None:
    """The context of the engine is all positions of the model."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=120, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.2, eos_token_id=1,
        bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(tmp_path / "policy")
    model: PolicyValueModel | ValueModel = (
        add_layers(tmp_path / "policy", tmp_path / "one", layers, SLOT)
        if layers
        else add_head(tmp_path / "policy", tmp_path / "one", std=0.2, slot=SLOT)
    )
    asyncio.run(_check_limits(str(tmp_path / "one"), model, TINY_ENGINE))


async def _check_limits(folder: str, model: PolicyValueModel | ValueModel, settings: Engine) -> None:
    longest = settings.max_model_len
    engines = build_engines(folder, OWN_HEAD, settings, settings)
    one = OnePass(engines.policy, folder, model)
    try:
        tokens = some_tokens(1, longest)
        expected = one.values(tokens)
        assert [each.value for each in await one.engine.score_each(tokens)] == pytest.approx(expected, abs=1e-4)
        assert (await one.engine.score(tokens)).value == pytest.approx(expected[-1], abs=1e-4)
        for room in (1, 5, 30):
            prefix = tokens[: longest - room]
            block = await one.engine.extend(prefix, replace(WARM, temperature=0.0), seed=0)
            assert len(block.tokens) == room or block.finished
            assert block.finish_reason == ("stop" if block.finished else "length")
            assert block.score.value == pytest.approx(one.values(prefix + block.tokens)[-1], abs=1e-4)
        hot = replace(WARM, temperature=2.0)
        made = await asyncio.gather(*(one.engine.extend((3, 4), hot, seed) for seed in range(32)))
        sampled = {token for completion in made for token in completion.tokens}
        assert len(sampled) > 100
        assert SLOT not in sampled
        for wrong in ((), tokens):
            with pytest.raises(ValueError, match=rf"prefix has {len(wrong)} tokens.*max_model_len"):
                await one.engine.extend(wrong, WARM, seed=0)
        with pytest.raises(ValueError, match=r"sequence has 257 tokens.*1 to 256 \(max_model_len\)"):
            await one.engine.score((*tokens, 2))
    finally:
        engines.close()
