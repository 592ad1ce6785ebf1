r"""Words in answers: what introduces an answer, names of functions and numbers, and which words are no mathematics. Pure."""

from __future__ import annotations

import re

from vgs_ray.answers.text import listed

FUNCTIONS = set(
    listed(
        """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lcm gcd max min det
    """
    )
) - {"min"}  # minutes
UNIT_LETTERS = "mgshlLKNJWV"

_WRAPPED = re.compile(
    r"\*\*(?P<bold>[^*]+)\*\*|__(?P<under>[^_]+)__|`(?P<code>[^`]+)`|\"(?P<quoted>[^\"]+)\"|``(?P<tex>[^`']+)''"
)
_INTRODUCTION = re.compile(
    r"(?:\\text\{)?\s*(?:(?:so|thus|hence|therefore|then)\b,?\s*)?(?:the|our|my)?\s*(?:final|correct|exact)?\s*"
    r"(?:answer|ans|result|solution|value)(?:\s+is\b(?:\s+therefore)?)?\s*[:=]?\s*\}?\s*[:=]?\s*",
    re.IGNORECASE,
)
_INTRODUCTION_CJK = re.compile(r"(?:\\text\{)?(?:最终)?(?:答案|答|解|正解|解答)(?:是|为|為|は)?\s*[:：=]?\s*\}?\s*")
_AFTER = re.compile(
    r"(?:\\text\{)?\s*\((?:or )?(?:about|approximately|approx\.?|\\approx|\\text\{(?:about|approximately|approx\.?)\})[^()]*\)\}?$|"  # noqa: E501
    r"(?:\s*\\(?:checkmark|blacksquare|square|Box|qed|hfill))+$"
)
_BEFORE = re.compile(r"^[=≈]\s*(?=\S)")
ALIASES = {"arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc", "lg": "log", "sen": "sin"}
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_COMMAND_WORDS = re.compile(
    r"(?<![\\A-Za-z{])(?:(?P<open>sqrt)(?=[\s\d({])|(?P<call>arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|"
    r"lcm|max|min)(?=\s*\()|(?P<trig>sin|cos|tan|log|ln)(?=\s+[\\a-z0-9]|_)|(?P<constant>pi|theta|alpha|beta|infinity|infty|inf)(?![A-Za-z]))"
)
_ASCII_SIGNS = (("<=", r"\le "), (">=", r"\ge "), ("**", "^"), ("->", r"\to "), ("±", r"\pm "))

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"  # noqa: E501
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: value for value, word in enumerate(_ONES.split())} | {
    w: 10 * n for n, w in enumerate(_TENS.split(), 2)
}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
NUMBERS |= {word: value for value, word in enumerate(_ORDINALS.split(), 1)}
NUMBERS |= {"a dozen": 12, "one hundred": 100, "hundred": 100}


def undress(text: str) -> str:
    """Without what stands around an answer: markdown, quotes, `Answer:`, a `\\text{}` around all of it."""
    before = None
    while before != text:
        text = text.replace("**", "") if text.startswith("**") else text
        before, text = text, _BEFORE.sub("", _AFTER.sub("", text.strip()))
        if wrapped := _WRAPPED.fullmatch(text):
            text = next(filter(None, wrapped.groups()))
        if whole := _WHOLE_TEXT.fullmatch(text):
            text = whole[1]
        for introduction in (_INTRODUCTION, _INTRODUCTION_CJK):
            said = introduction.match(text)
            if said and said.end() < len(text) and re.search(r"[:=：是为為は]|\bis\b", said[0]):
                # `\text{Answer: 5}` loses its opening, and so its closing brace.
                closes = said[0].count("{") > said[0].count("}") and text.endswith("}")
                text = text[said.end() : len(text) - closes]
    return text


def commands(text: str) -> str:
    r"""Functions and constants that stand without a backslash, and signs of programmers, as LaTeX."""
    for typed, latex in _ASCII_SIGNS:
        text = text.replace(typed, latex)
    return _COMMAND_WORDS.sub(
        lambda match: "\\" + match[0].replace("infinity", "infty").replace("infty", "inf").replace("inf", "infty"), text
    )


def join_products(text: str) -> str:
    """`2 x` is `2x`; `5 m` and `5 apples` may have a unit, so their space stays."""
    return re.sub(rf"(?<=\d) (?=[A-Za-z])(?![A-Za-z]{{2}}|[{UNIT_LETTERS}](?![A-Za-z]))", "", text)


def number_word(text: str) -> int | None:
    """`seven` or `twenty-one` as a number."""
    words = text.casefold().replace("-", " ").split()
    if len(words) == 2 and words[0] in _TENS.split() and 0 < NUMBERS.get(words[1], 0) < 10:
        return NUMBERS[words[0]] + NUMBERS[words[1]]
    return NUMBERS.get(" ".join(words))
