r"""Prompts: problems to tokens with a chat template, and tokens back to text.

In: the folder, URL or hub id of a tokenizer. Out: token tuples for the engines, text for the verifier and for people.
transformers is imported when a tokenizer is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.data.tokens import Tokens
from vgs_ray.models.folder import on_this_machine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

R1_INSTRUCTION = r" Please think step-by-step and put your final answer within \boxed{}."
"""The instruction that the paper appends to each problem for DeepSeek-R1-Distill policies (deepseek_utils.py in its code)."""
THINK, END_OF_THOUGHT = "<think>", "</think>"
THINKING = {"thinking": True, "enable_thinking": True}
"""Variables that turn thinking on in chat templates: the first in DeepSeek-V3.1, Granite and Kimi, the second in Qwen3, GLM and
SmolLM3. Other templates ignore them."""
PROMPT_TAIL = 16
"""Tokens at the end of a prompt that are searched for a thought tag. `</think>` and two line breaks are at most ten tokens."""
PLACEHOLDER = "{problem}"
PRIVATE_USE = range(0xF0000, 0xFFFFE)
"""65,534 Unicode characters without a meaning, more than a problem can contain."""
Role = Literal["system", "user", "assistant"]


class Turn(NamedTuple):
    """A message of a conversation."""

    role: Role
    text: str


class ConversationRefused(ValueError):
    """The policy's chat template has no place for one of the messages."""


@lru_cache(maxsize=8)
def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, URL or hub id, once per process.

    Raises:
        ValueError: it has no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(on_this_machine(path, weights=False))
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer {path} has no chat template, which prompts need: "
            f"add chat_template.jinja to its folder, or use an instruction-tuned model"
        )
    return tokenizer


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, problem: str | Sequence[Turn], instruction: str = "") -> Tokens:
    """The prompt of a problem: one user message in the chat template, with thinking turned on.

    If the template contains no thought tag and the tokenizer has these tags, `<think>` is appended: the first R1 templates left
    it to the policy, and the prompt of the paper opens the thought. A thought that the template closes stays closed.

    Text of the problem that equals a special token, such as the end of a turn, is tokenized as text, so that a problem cannot
    insert turns into the conversation.

    Args:
        tokenizer: of the policy.
        problem: the text of the problem, or a conversation whose last message is the problem. Of the assistant's earlier
            messages, thoughts are left out, as chat templates of reasoning models do.
        instruction: appended to the problem, such as `R1_INSTRUCTION` for R1-distilled policies. If it contains `{problem}`,
            the problem replaces this placeholder instead.

    Raises:
        ConversationRefused: the template refuses or leaves out one of the messages.
    """
    turns = (Turn("user", problem),) if isinstance(problem, str) else problem
    if len(turns) > 1:
        _check_roles(tokenizer, str(tokenizer.chat_template), tuple(turn.role for turn in turns))
    texts = [turn.text.rpartition(END_OF_THOUGHT)[2] if turn.role == "assistant" else turn.text for turn in turns]
    (*earlier, last), separator = _separate_special_tokens(tokenizer, texts, instruction)
    message = instruction.replace(PLACEHOLDER, last) if PLACEHOLDER in instruction else last + instruction
    text = _rendered(tokenizer, [Turn(turn.role, text) for turn, text in zip(turns, [*earlier, message], strict=True)])
    if not _template_thought(tokenizer, str(tokenizer.chat_template or "")) and _knows_tags(tokenizer):
        text += f"{THINK}\n"
    pieces = text.split(separator) if separator else [text]
    return tuple(token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"])


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    chat = [{"role": turn.role, "content": turn.text} for turn in turns]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **THINKING))


@lru_cache(maxsize=64)
def _check_roles(tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[Role, ...]) -> None:
    """Check that a template has a place for each message. `template` is part of the cache key.

    Raises:
        ConversationRefused: it refuses these roles, leaves a message out, or writes a system message as the assistant's.
    """
    turns = [Turn(role, chr(PRIVATE_USE[at])) for at, role in enumerate(roles)]
    try:
        text = _rendered(tokenizer, turns)
    except Exception as error:  # whatever the template raises
        raise ConversationRefused(f"the policy's chat template refuses these messages ({error})") from None
    for at, turn in enumerate(turns):
        if turn.text not in text:
            raise ConversationRefused(f"the policy's chat template has no place for message {at}, of the {turn.role}")
    if "system" not in roles:
        return
    at = roles.index("system")
    same, other = (_text_before(tokenizer, turns, at, role) for role in ("assistant", "user"))
    # Some templates have one branch for the user and one for all others.
    if text.partition(turns[at].text)[0] == same != other:
        raise ConversationRefused(f"the policy's chat template writes message {at}, of the system, as the assistant's")


def _text_before(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], at: int, role: Role) -> str | None:
    """What a template writes before one message if it is of this role; None if the template refuses that."""
    changed = [*turns[:at], Turn(role, turns[at].text), *turns[at + 1 :]]
    try:
        return _rendered(tokenizer, changed).partition(turns[at].text)[0]
    except Exception:  # whatever the template raises
        return None


Thought = Literal["opened", "closed", ""]
"""The state of the thought at the end of a prompt. Empty if the prompt contains no thought tag."""


def _last_tag(text: str) -> Thought:
    opened, closed = text.rfind(THINK), text.rfind(END_OF_THOUGHT)
    return "" if opened == closed else "opened" if opened > closed else "closed"


@lru_cache(maxsize=8)
def _template_thought(tokenizer: PreTrainedTokenizerBase, template: str) -> Thought:
    """The state of the thought after a user message in a template. `template` is part of the cache key."""
    probe = chr(PRIVATE_USE[0])
    return _last_tag(_rendered(tokenizer, [Turn("user", probe)]).rpartition(probe)[2]) if template else ""


def prompt_thought(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int] | NDArray[np.int32] | None = None
) -> Thought:
    """The state of the thought at the end of a prompt.

    Args:
        tokenizer: of the policy.
        prompt: the tokens of the prompt. By default those of `prompt_tokens` for any problem.
    """
    if prompt is not None:
        return _last_tag(tokenizer.decode(list(prompt[-PROMPT_TAIL:])))
    appended: Thought = "opened" if _knows_tags(tokenizer) else ""
    return _template_thought(tokenizer, str(tokenizer.chat_template or "")) or appended


def _separate_special_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], instruction: str
) -> tuple[list[str], str]:
    """Insert a separator after the first character of each piece of text that equals an added token.

    The prompt is tokenized in pieces that end at separators, so no piece contains such a token. Returns the texts and the
    separator, or the texts unchanged and an empty separator if they contain no such piece.
    """
    added = [token for token in _added_tokens(tokenizer) if any(token in text for text in texts)]
    if not added:
        return list(texts), ""
    used = set(instruction).union(*texts)
    separator = next(unused for code in PRIVATE_USE if (unused := chr(code)) not in used)
    pattern = f"(?=(?:{'|'.join(map(re.escape, added))}))(.)"  # the lookahead also matches overlapping tokens
    return [re.sub(pattern, rf"\1{separator}", text, flags=re.DOTALL) for text in texts], separator


@lru_cache(maxsize=8)
def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Added tokens that a problem could contain, except runs of spaces, which are harmless."""
    return tuple(text for text in tokenizer.get_added_vocab() if len(text) > 1 and text.strip())


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of generated tokens without special tokens, but with the thought tags."""
    hidden = _hidden_tokens(tokenizer)
    kept = [token for token in tokens if token not in hidden]
    return tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def decode_after(tokenizer: PreTrainedTokenizerBase, prefix: Sequence[int], tokens: Sequence[int]) -> str:
    """The text that `tokens` add to that of `prefix`, with special tokens.

    A token that the tokenizer puts before every text, such as that of the beginning, is left out at the start of a text.
    """

    def text(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    if not prefix:
        added = tokenizer("")["input_ids"]
        return text(tokens[len(added) :] if list(tokens[: len(added)]) == added else tokens)
    before, whole = text(prefix), text([*prefix, *tokens])
    return whole[len(before) :] if whole.startswith(before) else text(tokens)


@lru_cache(maxsize=8)
def _hidden_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens other than the thought tags."""
    tags = {tokenizer.convert_tokens_to_ids(tag) for tag in (THINK, END_OF_THOUGHT) if _known(tokenizer, tag)}
    return frozenset(tokenizer.all_special_ids) - tags


def response_text(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], prompt: Sequence[int] | NDArray[np.int32] | None = None
) -> str:
    """The text of a response. It begins with `</think>` if the response contains no thought.

    A response contains no thought if the prompt closes the thought and the response does not open another one, or if the policy
    does not think: neither prompt, response nor tokenizer have thought tags.

    Args:
        tokenizer: of the policy.
        tokens: the tokens of the response.
        prompt: the tokens of its prompt. By default those of `prompt_tokens`.
    """
    text = text_of(tokenizer, tokens)
    thought = prompt_thought(tokenizer, prompt)
    if thought == "closed":
        thinks = text.lstrip().startswith(THINK)
    else:
        tags = (THINK, END_OF_THOUGHT, "<|begin_of_thought|>")
        thinks = thought == "opened" or _known(tokenizer, END_OF_THOUGHT) or any(tag in text for tag in tags)
    return text if thinks else END_OF_THOUGHT + text


@lru_cache(maxsize=64)
def delimiter_tokens(tokenizer: PreTrainedTokenizerBase, delimiter: str) -> tuple[int, ...]:
    """The tokens whose text ends with a delimiter; a block ends at each of them. Empty for an empty delimiter.

    Raises:
        ValueError: no token ends with the delimiter.
    """
    if not delimiter:
        return ()
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    ending = tuple(token for token, text in enumerate(texts) if text.endswith(delimiter))
    if not ending:
        raise ValueError(
            f"no token ends with the delimiter {delimiter!r}: use the end of a token, such as a line break"
        )
    return ending


def solution_text(
    tokenizer: PreTrainedTokenizerBase,
    tokens: NDArray[np.int32],
    prompt: Sequence[int] | NDArray[np.int32] | None = None,
) -> str:
    """`response_text` from the end of the thought. All of the response if no thought ends.

    Answers count only there, and decoding a thought of 16,384 tokens takes longer than grading the answer.

    Args:
        tokenizer: of the policy.
        tokens: (length,) the tokens of a whole response.
        prompt: the tokens of its prompt. By default those of `prompt_tokens`.
    """
    if _known(tokenizer, END_OF_THOUGHT) and prompt_thought(tokenizer, prompt) != "closed":
        ends = np.flatnonzero(tokens == tokenizer.convert_tokens_to_ids(END_OF_THOUGHT))
        if len(ends):
            tokens = tokens[ends[0] :]
    return response_text(tokenizer, tokens.tolist(), prompt)


@lru_cache(maxsize=64)
def _known(tokenizer: PreTrainedTokenizerBase, tag: str) -> bool:
    """Whether a tag is one token of the tokenizer. `get_vocab()` would take milliseconds per call."""
    return tokenizer.convert_tokens_to_ids(tag) not in (None, tokenizer.unk_token_id)


def _knows_tags(tokenizer: PreTrainedTokenizerBase) -> bool:
    return _known(tokenizer, THINK) and _known(tokenizer, END_OF_THOUGHT)
