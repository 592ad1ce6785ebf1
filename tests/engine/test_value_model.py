"""The value model: saved layout, predictions, and vLLM against transformers for each backbone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from tiny import TINY_ENGINE
from torch.nn import functional as F

from vgs_ray.value.model import ARCHITECTURE, ValueModel


@pytest.fixture(scope="module")
def model(value_folder: Path) -> ValueModel:
    return ValueModel.from_pretrained(value_folder)


def test_saved_layout_is_the_released_one(value_folder: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoConfig

    weights = load_file(value_folder / "model.safetensors")
    heads = {name: tuple(weight.shape) for name, weight in weights.items() if not name.startswith("model.")}
    assert heads == {"score.0.weight": (64, 64), "score.2.weight": (3, 64)}
    assert "model.embed_tokens.weight" in weights
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    config = AutoConfig.from_pretrained(value_folder)
    assert (config.architectures, config.num_labels, config.model_type) == ([ARCHITECTURE], 3, "qwen2")


def test_a_saved_and_loaded_model_is_equal(model: ValueModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = ValueModel.from_pretrained(tmp_path)
    assert again.dropout.p == pytest.approx(0.1)
    tokens = torch.arange(2, 42).view(2, 20)
    assert torch.equal(model.success_probs(tokens), again.success_probs(tokens))


def test_success_probs_depend_on_earlier_tokens_only(model: ValueModel) -> None:
    tokens = torch.arange(2, 42).view(2, 20)
    probs = model.success_probs(tokens)
    assert probs.shape == (2, 20)
    assert probs.dtype == torch.float32
    assert torch.allclose(probs, model(tokens).softmax(-1)[..., 1])
    assert torch.allclose(probs[:, :7], model.success_probs(tokens[:, :7]), atol=1e-6)
    padded, mask = F.pad(tokens, (0, 5)), F.pad(torch.ones_like(tokens), (0, 5))
    assert torch.allclose(probs, model.success_probs(padded, mask)[:, :20], atol=1e-6)


def test_a_fresh_head_depends_on_its_seed_only(policy_folder: Path) -> None:
    heads = [ValueModel.from_backbone(policy_folder, seed=seed).score[0].weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_language_model_is_not_a_value_model(policy_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"score\.0\.weight is missing, must be \(64, 64\).*from_backbone"):
        ValueModel.from_pretrained(policy_folder)


def test_a_head_of_another_shape_is_named(model: ValueModel, tmp_path: Path) -> None:
    state = {**model.state_dict(), "score.2.weight": torch.zeros(1, 64)}
    model.save_pretrained(tmp_path, state)
    with pytest.raises(ValueError, match=r"score\.2\.weight is \(1, 64\), must be \(3, 64\)"):
        ValueModel.from_pretrained(tmp_path)


def random_policy(name: str, folder: Path) -> Path:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=120, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "outputs"), [("Qwen2", 1), ("Qwen3", 3), ("Llama", 3)])
def test_vllm_is_transformers_with_and_without_cached_prefix(name: str, outputs: int, tmp_path: Path) -> None:
    """Qwen2 has the single output of soft values and rankings here; test_engines has it with three classes."""
    from vgs_ray.engines import build_value

    model = ValueModel.from_backbone(random_policy(name, tmp_path / "policy"), num_labels=outputs)
    model.save_pretrained(tmp_path / "value")
    tokens = tuple(int(token) for token in torch.randint(2, 120, (200,), generator=torch.Generator().manual_seed(1)))
    expected = ValueModel.from_pretrained(tmp_path / "value").success_probs(torch.tensor([tokens]))[0]
    assert expected.std() > 1e-3  # not constant
    engine = build_value(str(tmp_path / "value"), TINY_ENGINE)
    try:
        for length in (60, 100, 200):
            cached = engine.usage.cached
            score = asyncio.run(engine.score(tokens[:length]))
            assert score.value == pytest.approx(expected[length - 1].item(), abs=1e-4)
            assert len(score.probs) == (0 if outputs == 1 else 3)
            assert (engine.usage.cached > cached) == (length > 60)
        each = asyncio.run(engine.score_each(tokens))
        assert [read.value for read in each] == pytest.approx(expected.tolist(), abs=1e-4)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("name", "labels"), [("Qwen2ForSequenceClassification", 1), ("LlamaForTokenClassification", 2)]
)
def test_process_reward_models_of_transformers_score_as_they_do_there(name: str, labels: int, tmp_path: Path) -> None:
    import transformers

    from vgs_ray.engines import build_value

    torch.manual_seed(5)
    config = getattr(transformers, f"{name.partition('For')[0]}Config")(
        vocab_size=120, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.2, num_labels=labels,
        pad_token_id=0,
    )  # fmt: skip
    model = getattr(transformers, name)(config).eval()
    if labels == 2:
        model.score.bias.data.normal_()
    model.save_pretrained(tmp_path)
    tokens = tuple(range(5, 105))
    engine = build_value(str(tmp_path), TINY_ENGINE)
    try:
        for length in (50, 100):
            with torch.no_grad():
                logits = model(torch.tensor([tokens[:length]])).logits.reshape(-1, labels)[-1]
            expected = logits.softmax(-1)[1] if labels == 2 else logits[0].sigmoid()
            assert asyncio.run(engine.score(tokens[:length])).value == pytest.approx(expected.item(), abs=1e-4)
            assert asyncio.run(engine.score_each(tokens))[length - 1].value == pytest.approx(expected.item(), abs=1e-4)
        assert engine.usage.cached > 0
    finally:
        engine.close()


def test_bfloat16_is_saved_and_loaded(model: ValueModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    again = ValueModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tokens = torch.arange(2, 42).view(2, 20)
    assert torch.allclose(model.success_probs(tokens), again.success_probs(tokens), atol=0.05)
