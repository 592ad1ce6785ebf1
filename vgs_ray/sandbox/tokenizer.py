r"""The sandbox tokenizer. Its tokens are words, numbers and pieces of LaTeX, each with the space that follows it.

Out: a `PreTrainedTokenizerFast` with a chat template, which `AutoTokenizer.from_pretrained` loads without custom code. Decoding
concatenates the tokens, so a text of known words is restored exactly.
"""

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vgs_ray.sandbox.world import MODULUS, MOST_STEPS

PAD, EOS, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|eos|>", "<|user|>", "<|assistant|>", "<unk>"
THINK, END_OF_THOUGHT = "<think>", "</think>"

PIECES = r"\n\d+\) |multiply by |\\boxed\{|\\frac\{|\}\{|\d+|[A-Za-z]+,? ?|[;.:] |\s|."
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ ('" + USER + "' if message['role'] == 'user' else '" + ASSISTANT + "') + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ '" + EOS + "' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + THINK + "' }}{% endif %}"
)
# All phrases of the world. The vocabulary consists of their pieces, and other words become <unk>.
PHRASES = (
    "Work modulo 0. Start with 0.\n",
    "add subtract multiply by ",
    "What is the last value?",
    "What is the last value divided by 0, as an ordinary fraction?",
    "0+0-0*0/0=0; wait, hmm; let me check again;",
    "\nso 0.\nThe answer is \\boxed{\\frac{0}{0}}",
    " ,.?;:()\n",
)


def vocabulary() -> dict[str, int]:
    """Map every token to its id, special tokens first."""
    pieces = [PAD, EOS, USER, ASSISTANT, UNKNOWN, THINK, END_OF_THOUGHT]
    pieces += [str(number) for number in range(max(100, 9 * MODULUS))]
    pieces += [f"\n{number}) " for number in range(1, MOST_STEPS + 1)]
    for phrase in PHRASES:
        pieces += re.findall(PIECES, phrase)
    pieces += ["}", " "]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer. It depends only on this file and the constants of the world."""
    inner = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    inner.decoder = decoders.Fuse()
    # The thought tags are not special tokens, as in real reasoning models: skip_special_tokens must keep them.
    inner.add_tokens([AddedToken(text, normalized=False, special=False) for text in (THINK, END_OF_THOUGHT)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="right",
    )
