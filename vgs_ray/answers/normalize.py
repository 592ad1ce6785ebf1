r"""Normalize the text of an answer: sizes, spacing, colours, fonts, missing braces, Unicode. Pure.

`\dfrac12`, `\frac{1}{2}`, `{1\over2}` and `½` become the same text. Only formatting is removed, and nothing is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from vgs_ray.answers.costly import MAX_DEPTH
from vgs_ray.answers.latex_commands import (
    ARGUMENTS,
    COLOURS,
    FONTS,
    FUNCTION_ALIASES,
    FUNCTIONS,
    REMOVED,
    RENAMED,
    TEXT,
    add_backslashes,
)
from vgs_ray.answers.numerals import regroup, rewrite_numerals
from vgs_ray.answers.unicode_math import to_latex
from vgs_ray.answers.units import UNIT_LETTERS
from vgs_ray.answers.wrappers import unwrap

TokenTree = list["str | TokenTree"]

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|.", re.DOTALL)
_WHITE = re.compile(r"\s{2,}|[\t\n\r\f\v]")
_MATRIX = re.compile(r"matrix|array|cases|align|gather|split")
_ARRAY_OPENS = re.compile(r"[(\[]\s*\\begin\{(?:array|matrix)\}(?:\s*[lcr|]+(?=[^A-Za-z|]))?")
_ARRAY_CLOSES = re.compile(r"\\end\{(?:array|matrix)\}\s*[)\]]")
_MATRIX_EDGE = re.compile(r"\\begin\{([bpBvV]?)(small)?matrix\}|\\end\{([bpBvV]?)(small)?matrix\}")


def _token_tree(text: str) -> TokenTree | None:
    """Tokens, with a nested list for each pair of braces. None if the braces do not match or are nested too deeply."""
    root: TokenTree = []
    stack = [root]
    for token in _TOKEN.findall(text):
        if token == "{":
            inner: TokenTree = []
            stack[-1].append(inner)
            stack.append(inner)
            if len(stack) > MAX_DEPTH + 1:
                return None
        elif token != "}":
            stack[-1].append(RENAMED.get(token, token))
        elif len(stack) == 1:
            return None
        else:
            stack.pop()
    return root if len(stack) == 1 else None


class _Writer:
    """Writes the tokens of one level of braces from left to right."""

    def __init__(self, tokens: TokenTree) -> None:
        self.tokens, self.position = tokens, 0

    def write(self) -> str:
        for command, name in ((r"\over", r"\frac"), (r"\choose", r"\binom")):
            if command in self.tokens:
                at = self.tokens.index(command)
                return f"{name}{{{_write(self.tokens[:at])}}}{{{_write(self.tokens[at + 1 :])}}}"
        if r"\rm" in self.tokens:
            at = self.tokens.index(r"\rm")
            return _join([_write(self.tokens[:at]), _upright(_write(self.tokens[at + 1 :]))])
        pieces = []
        while self.position < len(self.tokens):
            pieces.append(self.piece())
        return _join(pieces)

    def piece(self) -> str:
        token = self.tokens[self.position]
        self.position += 1
        if isinstance(token, list):
            return self.grouped(_write(token))
        if token.isspace():
            return " "
        for names, write in _WRITERS:
            if token in names:
                return write(self, token)
        return token

    def grouped(self, inner: str) -> str:
        """Braces stay only before a power or an index: `{ab}^2` is not `ab^2`."""
        follows = self.peek() in ("^", "_") and len(inner) > 1
        return f"{{{inner}}}" if follows else inner

    def peek(self) -> str | TokenTree:
        while self.position < len(self.tokens) and str(self.tokens[self.position]).isspace():
            self.position += 1
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def argument(self) -> str:
        r"""The argument of a command: a group, or one token: `\frac12`. `\sqrt(2)` is read as `\sqrt{2}`, as models mean it."""
        token = self.peek()
        self.position += 1
        if isinstance(token, list):
            return _write(token)
        if token == "(":
            return self.up_to(")")
        if token in ("-", "+"):
            return token + self.argument()
        self.position -= 1
        return self.piece() if self.position < len(self.tokens) else ""

    def up_to(self, closing: str) -> str:
        opening = {")": "(", "]": "["}[closing]
        depth, start = 1, self.position
        while self.position < len(self.tokens):
            depth += (self.tokens[self.position] == opening) - (self.tokens[self.position] == closing)
            self.position += 1
            if not depth:
                return _write(self.tokens[start : self.position - 1])
        self.position = start
        return opening

    def font(self, _: str) -> str:
        return self.grouped(self.argument())

    def text(self, _: str) -> str:
        return _upright(self.argument())

    def colour(self, _: str) -> str:
        if self.peek() == "[":
            self.position += 1
            self.up_to("]")
        self.argument()
        return ""

    def removed(self, _: str) -> str:
        self.argument()
        return " "

    def script(self, token: str) -> str:
        inner = self.argument().strip()
        if token == "^" and inner in (r"\circ", "'"):
            return r"^\circ" if inner == r"\circ" else "'"
        return f"{token}{{{inner}}}" if inner else ""

    def command(self, token: str) -> str:
        index = ""
        if token == r"\sqrt" and self.peek() == "[":
            self.position += 1
            index = f"[{self.up_to(']')}]"
            index = "" if index == "[2]" else index
        arguments = [self.argument().strip() for _ in range(ARGUMENTS[token])]
        return token + index + "".join(f"{{{argument}}}" for argument in arguments)


_WRITERS: list[tuple[set[str], Callable[[_Writer, str], str]]] = [
    (FONTS, _Writer.font),
    (TEXT, _Writer.text),
    (COLOURS, _Writer.colour),
    (REMOVED, _Writer.removed),
    ({"^", "_"}, _Writer.script),
    (set(ARGUMENTS), _Writer.command),
]


def _write(tokens: TokenTree) -> str:
    return _Writer(tokens).write()


def _join(pieces: list[str]) -> str:
    r"""Join pieces. A space separates a command from a letter: `\pi r`."""
    text = ""
    for piece in pieces:
        if piece[:1].isalpha() and piece[:1].isascii() and re.search(r"\\[A-Za-z]+$", text[-20:]):
            text += " "
        text += piece
    return text


def _upright(inner: str) -> str:
    r"""The content of `\text` or `\mathrm`: `e` for `\mathrm{e}`, `\sin` for `\mathrm{sin}`, `\text{cm}` for `\mathrm{cm}`."""
    inner = re.sub(r"\s+", " ", re.sub(r"\\text\{([^{}]*)\}", r"\1", inner)).strip()
    inner = FUNCTION_ALIASES.get(inner, inner)
    if inner in FUNCTIONS:
        return "\\" + inner
    if not re.search(r"[A-Za-z]{2}|[^\x00-\x7f]", re.sub(r"\\[A-Za-z]+", "", inner)) and not _letter_of_unit(inner):
        return inner  # `\mathrm{e}`, `\mathrm{i}`, `\text{(A)}`, `\mathrm{5}`, `\text{,}`
    inner = re.sub(r"\^\{([^{}]*)\}", r"^\1", inner)
    link = re.fullmatch(r"(.+?),? (and|or)", inner)
    return rf"\text{{{link[1]}}}\text{{{link[2]}}}" if link else rf"\text{{{inner}}}"


def _letter_of_unit(inner: str) -> bool:
    return bool(inner) and inner[0] in UNIT_LETTERS and not inner[1:2].isalpha()


def _normalize_signs(text: str) -> str:
    """The rules that need no braces: dots, digits, Unicode, text around the answer."""
    text = re.sub(r"\.{3,}", r"\\ldots ", text)
    text = re.sub(r"(?<=\d)(?:,\\!|\{,\})\s*(?=\d{3})", "", text)  # `1{,}000` and `1,\!000`
    text = re.sub(r"\\!\s*", "", to_latex(text).replace("{,}", ","))
    if not _MATRIX.search(text):
        text = re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    text = re.sub(r"\\(?:left|right)\s*\.", "", text)
    return add_backslashes(regroup(unwrap(text)))


def _normalize_spaces(text: str) -> str:
    text = re.sub(r"\s+", " ", trim(text))
    # Some spaces stay: `1 1/2` is not `11/2`, and the list `1, 234` is not the number `1,234`.
    text = re.sub(r"(?<![0-9A-Za-z,]) | (?![0-9A-Za-z])|(?<=,) (?!\d{3}(?!\d))", "", text)
    return _join_products(text)


def _join_products(text: str) -> str:
    """`2 x` becomes `2x`. `5 m` and `5 apples` stay, since a unit may follow."""
    return re.sub(rf"(?<=\d) (?=[A-Za-z])(?![A-Za-z]{{2}}|[{UNIT_LETTERS}](?![A-Za-z]))", "", text)


def trim(text: str) -> str:
    r"""Remove what follows answers in data sets: white space, full stops, `\\`, `\noindent`."""
    before = None
    while text != before:
        before, text = text, text.strip()
        text = (
            (text if text.endswith("..") else text.removesuffix("."))
            .removesuffix("。")
            .removesuffix("\\")
            .removesuffix(r"\noindent")
        )
    return text


@lru_cache(maxsize=8192)
def normalize_answer(text: str) -> str:
    """The normal form of an answer. If its braces do not match, only signs and spaces are normalized."""
    signs = _normalize_signs(trim(_WHITE.sub(" ", text)))
    try:
        tree = _token_tree(signs)
        return _normalize_spaces(signs) if tree is None else _normalize_structures(_write(tree))
    except (RecursionError, ValueError):  # a thousand nested commands, each the argument of the one before
        return _normalize_spaces(signs)


def _normalize_structures(text: str) -> str:
    """The rules for well-formed text: matrices, the empty set, numbers, ratios, binomials."""
    text = unwrap(trim(re.sub(r"\s+", " ", text)))
    text = _ARRAY_CLOSES.sub(r"\\end{pmatrix}", _ARRAY_OPENS.sub(r"\\begin{pmatrix}", text)).replace(
        r"\{\}", r"\emptyset "
    )
    text = _MATRIX_EDGE.sub(
        lambda m: rf"\{'begin' if m[0][1] == 'b' else 'end'}{{{_brackets(m[1] or m[3] or '')}matrix}}", text
    )
    text = _RATIO.sub(":", rewrite_numerals(_normalize_spaces(text)))
    return _PERMUTATIONS.sub(_permutation, _COMBINATIONS.sub(_binomial, text))


# 5 choose 2: `C_{5}^{2}`, `C^{2}_{5}`, `C(5,2)`, `_{5}C_{2}`
_COMBINATIONS = re.compile(
    r"C_\{(\d+)\}\^\{(\d+)\}|(?<![A-Za-z\\])C\^\{(\d+)\}_\{(\d+)\}|(?<![A-Za-z\\])C\((\d+),(\d+)\)|[_^]\{(\d+)\}C_\{(\d+)\}"
)
# 5!/3!: `_{5}P_{2}`, `A_{5}^{2}`, `P(5,2)`
_PERMUTATIONS = re.compile(
    r"[_^]\{(\w)\}P_\{(\w)\}|(?<![A-Za-z\\])A_\{(\d+)\}\^\{(\d+)\}|(?<![A-Za-z\\])P\((\d+),(\d+)\)"
)
_RATIO = re.compile(r"(?<=\d)(?: to |\\text\{to\})(?=\d)")  # `3 to 4` becomes `3:4`


def _permutation(match: re.Match[str]) -> str:
    above, below = (part for part in match.groups() if part)
    return rf"\frac{{{above}!}}{{({above}-{below})!}}"


def _binomial(match: re.Match[str]) -> str:
    above, below = (part for part in match.groups() if part)
    return rf"\binom{{{below}}}{{{above}}}" if match[3] else rf"\binom{{{above}}}{{{below}}}"


def _brackets(kind: str) -> str:
    return kind if kind in "vV" and kind else "p"
