r"""Words in answers: what introduces an answer, names of functions and numbers, and which words are no mathematics. Pure."""

from __future__ import annotations

import re

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
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def unwrap(text: str) -> str:
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
