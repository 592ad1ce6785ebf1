"""The slot of a policy's value head: a token id that the policy never has to sample.

An engine returns log-probabilities of tokens, and nothing else of the model. So the head's output takes the place of the
log-probability of one token, which the engine then never samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgs_ray.models.folder import VOCABULARY


def choose_slot(folder: Path, config: Any) -> int:
    """A token id that a policy's texts do not contain.

    The first of: an id beyond the tokenizer's vocabulary, for which most models have unused embedding rows; the padding token;
    the last special token that has no role and is not in the chat template. An end token is never chosen.

    Args:
        folder: of the policy.
        config: of the policy.

    Raises:
        ValueError: there is none.
    """
    ends = end_tokens(folder, config)
    tokenizer = _tokenizer(folder)
    ids = tokenizer.get_vocab().values() if tokenizer else range(config.vocab_size)
    candidates = [max(ids) + 1] if max(ids) + 1 < config.vocab_size else []
    candidates += [config.pad_token_id, tokenizer.pad_token_id if tokenizer else None]
    candidates += _spare_special_tokens(tokenizer) if tokenizer else []
    slot = next((id for id in candidates if id is not None and id not in ends), None)
    if slot is None:
        raise ValueError(
            f"{folder} has no token that can carry the value: all {config.vocab_size} embedding rows are in use and no padding "
            "token differs from the end tokens: resize the embedding by one row, or pass slot"
        )
    return slot


def check_slot(folder: Path, config: Any, slot: int) -> None:
    """Check that a token id can be the slot.

    Raises:
        ValueError: it is outside the vocabulary, or an end token.
    """
    if not 0 <= slot < config.vocab_size:
        raise ValueError(f"{folder}: the slot of the value head is {slot}; it must be 0 to {config.vocab_size - 1}")
    if slot in end_tokens(folder, config):
        raise ValueError(
            f"{folder}: the slot of the value head is {slot}, an end token, which must be sampled: pass another"
        )


def end_tokens(folder: Path, config: Any) -> set[int]:
    """End-of-sequence tokens of a policy's folder, from its generation config and its config."""
    from transformers import GenerationConfig

    found = [getattr(config, "eos_token_id", None)]
    if (folder / "generation_config.json").is_file():
        found.append(GenerationConfig.from_pretrained(folder).eos_token_id)
    return {id for ids in found if ids is not None for id in ([ids] if isinstance(ids, int) else ids)}


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder) if any((folder / name).is_file() for name in VOCABULARY) else None


def _spare_special_tokens(tokenizer: Any) -> list[int]:
    """Special tokens without a role and outside the chat template, the last first."""
    template = str(tokenizer.chat_template or "")
    roles = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    added = sorted(tokenizer.added_tokens_decoder.items(), reverse=True)
    return [id for id, token in added if token.special and id not in roles and token.content not in template]
