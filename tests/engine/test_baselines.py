"""Baseline value models: the random scorer, and one with another tokenizer than the policy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_value
from vgs_ray.engines.interface import Score, Usage
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.engines.vocabularies import TranslatedValue, find_translation
from vgs_ray.models import RANDOM, model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens

REFERENCE = model_path("sandbox:ref")


@given(st.lists(st.integers(0, 100), min_size=1))
def test_a_random_value_is_a_function_of_the_tokens(tokens: list[int]) -> None:
    first, again = (asyncio.run(RandomValue().score(tuple(tokens))) for _ in range(2))
    assert first == again
    assert 0 <= first.value < 1


def test_random_values_are_uniform_and_forward_no_tokens() -> None:
    value = build_value(RANDOM, None)  # type: ignore[arg-type]
    values = [asyncio.run(value.score((at,))).value for at in range(2000)]
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert value.usage == Usage()


@dataclass
class Recorder:
    """A value model that records the tokens it gets."""

    received: list[Tokens] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    async def score(self, tokens: Tokens) -> Score:
        self.received.append(tokens)
        return Score(0.5)


def test_another_vocabulary_is_translated_through_text(tmp_path: Path) -> None:
    letters = Tokenizer(models.WordLevel({chr(code): code for code in range(32, 127)} | {"?": 0}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?").save_pretrained(tmp_path)
    translation = find_translation(REFERENCE, str(tmp_path))
    assert translation is not None
    recorder = Recorder()
    tokenizer = load_tokenizer(REFERENCE)
    tokens = prompt_tokens(tokenizer, "What is 3 + 4?")
    asyncio.run(TranslatedValue(recorder, translation).score(tokens))  # type: ignore[arg-type]
    [received] = recorder.received
    assert "What is 3 + 4" in "".join(map(chr, received))
    assert "<" not in "".join(map(chr, received)).replace("<think>", "")


def test_an_equal_vocabulary_needs_no_translation(tmp_path: Path) -> None:
    assert find_translation(REFERENCE, REFERENCE) is None
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert find_translation(REFERENCE, str(tmp_path)) is None


@pytest.mark.parametrize("given", ["./nothing", "/nowhere/at/all"])
def test_a_missing_value_model_folder_is_an_error(given: str) -> None:
    from pipelines.recipes import sandbox
    from vgs_ray.errors import UserError
    from vgs_ray.models.checks import value_model

    with pytest.raises(UserError, match="check the path"):
        value_model(sandbox(), given)
    assert value_model(sandbox(), RANDOM) == RANDOM
    assert value_model(sandbox(), "Qwen/Some-PRM") == "Qwen/Some-PRM"
