r"""Answers that are plainly no mathematics: empty, broken off, prose, or random signs. Pure, linear time.

A policy must not get out of "incorrect" by writing what cannot be read, so these are told apart from notation that is only not known here.
"""

from __future__ import annotations

import re

from vgs_ray.answers import units
from vgs_ray.answers.text import balanced
from vgs_ray.answers.words import FUNCTIONS, NUMBERS

MAX_WORDS = 4  # an answer with more words that say nothing about quantities or conditions is prose

_COMMANDS = set(
    [r"frac", r"binom", r"sqrt", r"pi", r"infty", r"cdot", r"times", r"text", r"overline", r"dot", r"hat", r"vec", r"tilde", r"widehat", r"widetilde", r"overrightarrow", r"mathbb", r"mathcal", r"mathfrak", r"mathscr", r"cancel", r"overset", r"begin", r"end", r"le", r"ge", r"ne", r"lt", r"gt", r"approx", r"equiv", r"pmod", r"bmod", r"mod", r"pm", r"mp", r"in", r"notin", r"cup", r"cap", r"setminus", r"emptyset", r"subset", r"subseteq", r"supset", r"ldots", r"to", r"mid", r"parallel", r"perp", r"angle", r"triangle", r"circ", r"forall", r"exists", r"land", r"lor", r"neg", r"Rightarrow", r"Leftrightarrow", r"mapsto", r"sum", r"prod", r"int", r"oint", r"lim", r"partial", r"nabla", r"lfloor", r"rfloor", r"lceil", r"rceil", r"langle", r"rangle", r"Vert", r"sim", r"cong", r"propto", r"star", r"bullet", r"oplus", r"otimes", r"mathbf", r"ell", r"Re", r"Im", r"arg", r"deg", r"dim", r"ker", r"hbar", r"aleph", r"square", r"Box", r"top", r"bot", r"dagger", r"stackrel", r"underbrace", r"overbrace", r"underset", r"xrightarrow", r"limsup", r"liminf", r"sup", r"inf", r"ne", r"because", r"so", r"alpha", r"beta", r"gamma", r"delta", r"epsilon", r"varepsilon", r"zeta", r"eta", r"theta", r"vartheta", r"iota", r"kappa", r"lambda", r"mu", r"nu", r"xi", r"rho", r"sigma", r"varsigma", r"tau", r"upsilon", r"phi", r"varphi", r"chi", r"psi", r"omega", r"Gamma", r"Delta", r"Theta", r"Lambda", r"Xi", r"Pi", r"Sigma", r"Upsilon", r"Phi", r"Psi", r"Omega", r"arccot", r"arcsec", r"arccsc", r"coth", r"permil", r"sinh", r"cosh", r"tanh", r"min", r"inf", r"hline", r"nmid", r"quad"]
) | FUNCTIONS  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WORD = re.compile(r"(?<![A-Za-z\\])(?:[A-Za-z]{2,}|[\u0400-\u04ff]{2,})(?![A-Za-z\u0400-\u04ff])")
_SENSE = set(
    ["if", "when", "where", "for", "all", "any", "every", "is", "are", "odd", "even", "prime", "integer", "integers", "positive", "negative", "real", "number", "numbers", "and", "or", "not", "mod", "base", "divisible", "by", "multiple", "of", "with", "such", "that", "otherwise", "the", "an", "values", "no", "solution", "solutions", "per", "square", "cubic", "units", "to", "from", "at", "least", "most", "than", "only", "both", "each", "than", "any", "other"]
)  # fmt: skip
_FOREIGN = re.compile(
    r"[^\x20-\x7e\u00a2-\u00a5\u20a0-\u20bf\u00c0-\u024f\u0400-\u04ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_DANGLING = re.compile(
    r"(?:^[*/^_=]|^\\(?:cdot|times|le|ge|ne|cup|cap|in)(?![A-Za-z])|(?:[-+*/^_=<>]|\\(?:cdot|times|le|ge|ne|cup|cap|in|pm))\s*$|[*/^_]{2,}|[-+*/=]\s*[*/=^_]|\\frac\{[^{}]*\}\{\}|\\(?:frac|overline|sqrt|text)\{\}|\d \d)"
)


def is_nonsense(text: str) -> bool:
    """Whether a text, in the spelling of `spelling.plain`, is no attempt at a mathematical answer."""
    if not re.search(r"[0-9A-Za-z\u3040-\u9fff\uac00-\ud7af]", text):
        return True
    if _FOREIGN.search(text) or not _half_open(text) or _DANGLING.search(text):
        return True
    if any(name not in _COMMANDS for name in _COMMAND.findall(text)):
        return True
    outside = re.sub(r"\\(?:begin|end)\{[^{}]*\}", "", text)
    words = [
        word
        for word in _WORD.findall(outside)
        if word.casefold() not in _SENSE | FUNCTIONS and word.casefold() not in NUMBERS
    ]
    long = [word for word in words if units.name_of(word) is None and len(word) > 2]
    return len(long) >= MAX_WORDS or len(re.findall(r"[\u3400-\u9fff\uac00-\ud7af]", text)) > 12


def _half_open(text: str) -> bool:
    return balanced(text)
