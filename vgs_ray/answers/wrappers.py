r"""Text around an answer: `Answer: 5`, `The answer is 5`, `**5**`, `"5"`, `5 \checkmark`, `12.3 (approximately 12)`. Pure."""

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
    r"""The answer without markdown, quotes, an introduction, and a `\text{}` around all of it."""
    before = None
    while before != text:  # until no rule applies: `**Answer: 5**`
        text = text.replace("**", "") if text.startswith("**") else text
        before, text = text, _BEFORE.sub("", _AFTER.sub("", text.strip()))
        if wrapped := _WRAPPED.fullmatch(text):
            text = next(filter(None, wrapped.groups()))
        if whole := _WHOLE_TEXT.fullmatch(text):
            text = whole[1]
        for introduction in (_INTRODUCTION, _INTRODUCTION_CJK):
            match = introduction.match(text)
            if match and match.end() < len(text) and re.search(r"[:=：是为為は]|\bis\b", match[0]):
                # `\text{Answer: 5}`: the closing brace goes with the opening one.
                closes = match[0].count("{") > match[0].count("}") and text.endswith("}")
                text = text[match.end() : len(text) - closes]
    return text
