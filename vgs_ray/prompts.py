r"""The only edge between text and tokens: a problem becomes a prompt, tokens become text.

In: a tokenizer's folder or hub id. Out: token tuples for the engines, text for the verifier and the reader.
transformers is imported inside the call that loads a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vgs_ray.data.tokens import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

R1_INSTRUCTION = r" Please think step-by-step and put your final answer within \boxed{}."
"""What the paper appends to each problem for the DeepSeek-R1-Distill policies (deepseek_utils.py in its code)."""
THINK, END_OF_THOUGHT = "<think>", "</think>"
THINKING = {"thinking": True, "enable_thinking": True}
"""Variables by which chat templates turn thinking on: DeepSeek-V3.1, Granite and Kimi read the first, Qwen3, GLM and SmolLM3 the
second. A template without them ignores both."""
PROMPT_TAIL = 16
"""Tokens at the end of a prompt, among which the last tag is: `</think>` and two line breaks are at most ten."""
PLACE = "{problem}"
PRIVATE_USE = range(0xF0000, 0xFFFFE)
"""Characters without a meaning of their own: 65,534, more than a problem can use up."""


@lru_cache(maxsize=8)
def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or hub id; loaded once for each process.

    Raises:
        ValueError: it has no chat template, so a problem could not be told from an answer.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer {path} has no chat template; a prompt needs one: "
            f"add chat_template.jinja beside it or use an instruction-tuned model"
        )
    return tokenizer


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, problem: str, instruction: str = "") -> Tokens:
    """The problem as one user message, and what the chat template opens the reply with, with thinking asked for.

    Where the template says nothing about a thought and the tokenizer knows the tags, `<think>` is appended: the first R1
    templates left it to the policy, and the paper's prompt opens it. A thought that the template has closed stays closed.

    Text of the problem that looks like one of the tokenizer's own tokens, such as the end of a turn, stays text: whoever asks
    must not be able to write the turns of others.

    Args:
        problem: its text, as in the tables.
        instruction: appended to the problem as it stands, `R1_INSTRUCTION` for R1-distilled policies; one that holds
            `{problem}` is a template, and the problem takes that place.
    """
    problem, seam = _inert(tokenizer, problem, instruction)
    asked = instruction.replace(PLACE, problem) if PLACE in instruction else problem + instruction
    text = _rendered(tokenizer, asked)
    if not _template_thought(tokenizer, str(tokenizer.chat_template or "")) and _knows_tags(tokenizer):
        text += f"{THINK}\n"
    pieces = text.split(seam) if seam else [text]
    return tuple(token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"])


def _rendered(tokenizer: PreTrainedTokenizerBase, asked: str) -> str:
    chat = [{"role": "user", "content": asked}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **THINKING))


Thought = Literal["opened", "closed", ""]
"""What a prompt has done with the thought before the first token of the response; empty where it says nothing about it."""


def _last_tag(text: str) -> Thought:
    opened, closed = text.rfind(THINK), text.rfind(END_OF_THOUGHT)
    return "" if opened == closed else "opened" if opened > closed else "closed"


@lru_cache(maxsize=8)
def _template_thought(tokenizer: PreTrainedTokenizerBase, template: str) -> Thought:
    """What the template itself writes behind a user's message; `template` is the cache's key, since it can be replaced."""
    probe = chr(PRIVATE_USE[0])
    return _last_tag(_rendered(tokenizer, probe).rpartition(probe)[2]) if template else ""


def prompt_thought(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int] | NDArray[np.int32] | None = None
) -> Thought:
    """Whether a prompt leaves the thought opened or closed.

    Args:
        tokenizer: of the policy.
        prompt: tokens of the prompt; without them, what `prompt_tokens` makes for this tokenizer.
    """
    if prompt is not None:
        return _last_tag(tokenizer.decode(list(prompt[-PROMPT_TAIL:])))
    appended: Thought = "opened" if _knows_tags(tokenizer) else ""
    return _template_thought(tokenizer, str(tokenizer.chat_template or "")) or appended


def _inert(tokenizer: PreTrainedTokenizerBase, problem: str, instruction: str) -> tuple[str, str]:
    """The problem with a seam behind the first character of each text that would be read as an added token, and the seam.

    What is tokenized in pieces that end there has no such token. There is no seam, and no change, where nothing looks like one.
    """
    added = [text for text in _added_tokens(tokenizer) if text in problem]
    if not added:
        return problem, ""
    used = set(problem + instruction)
    seam = next(free for code in PRIVATE_USE if (free := chr(code)) not in used)
    # Looking ahead finds those that overlap, too.
    return re.sub(f"(?=(?:{'|'.join(map(re.escape, added))}))(.)", rf"\1{seam}", problem, flags=re.DOTALL), seam


@lru_cache(maxsize=8)
def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Those that a problem could write. Some tokenizers add runs of spaces: these say nothing but spaces, and stay."""
    return tuple(text for text in tokenizer.get_added_vocab() if len(text) > 1 and text.strip())


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Text of generated tokens without special ones, but with the tags that open and end a thought."""
    hidden = _hidden(tokenizer)
    kept = [token for token in tokens if token not in hidden]
    return tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@lru_cache(maxsize=8)
def _hidden(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens other than the tags of a thought."""
    tags = {tokenizer.convert_tokens_to_ids(tag) for tag in (THINK, END_OF_THOUGHT) if _known(tokenizer, tag)}
    return frozenset(tokenizer.all_special_ids) - tags


def response_text(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], prompt: Sequence[int] | NDArray[np.int32] | None = None
) -> str:
    """Text of a response; `</think>` stands before its first word where no thought was open there.

    That is so after a prompt that has closed the thought, unless the response opens another one, and for a policy that does
    not think: its prompt and its response have no tags, and its tokenizer knows none.

    Args:
        tokenizer: of the policy.
        tokens: the response.
        prompt: what it answers; without it, the prompt of `prompt_tokens`.
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
    """All tokens whose text ends in the delimiter; a block ends at each of them. None for an empty delimiter.

    Raises:
        ValueError: there is no such token.
    """
    if not delimiter:
        return ()
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    found = tuple(token for token, text in enumerate(texts) if text.endswith(delimiter))
    if not found:
        raise ValueError(f"no token ends in the delimiter {delimiter!r}: name a text that is the end of a token")
    return found


def solution_text(
    tokenizer: PreTrainedTokenizerBase,
    tokens: NDArray[np.int32],
    prompt: Sequence[int] | NDArray[np.int32] | None = None,
) -> str:
    """`response_text` from the end of the thought on, all of it where no token says that a thought ended.

    An answer counts only there, and decoding a thought of 16,384 tokens costs more than judging the answer.

    Args:
        tokenizer: of the policy.
        tokens: (length,) of a whole response.
        prompt: as for `response_text`.
    """
    if _known(tokenizer, END_OF_THOUGHT) and prompt_thought(tokenizer, prompt) != "closed":
        ends = np.flatnonzero(tokens == tokenizer.convert_tokens_to_ids(END_OF_THOUGHT))
        if len(ends):
            tokens = tokens[ends[0] :]
    return response_text(tokenizer, tokens.tolist(), prompt)


@lru_cache(maxsize=64)
def _known(tokenizer: PreTrainedTokenizerBase, tag: str) -> bool:
    """Whether the tag is one token; asking for the whole vocabulary would take milliseconds a call."""
    return tokenizer.convert_tokens_to_ids(tag) not in (None, tokenizer.unk_token_id)


def _knows_tags(tokenizer: PreTrainedTokenizerBase) -> bool:
    return _known(tokenizer, THINK) and _known(tokenizer, END_OF_THOUGHT)
