r"""Answers that are certainly no mathematics: empty, incomplete, prose, or random signs. Pure, linear time.

An unreadable answer is either nonsense, and then incorrect, or notation that is not known here, and then unknown. Without this
distinction a policy could avoid the outcome incorrect by writing what cannot be read.
"""

from __future__ import annotations

import re

from vgs_ray.answers import units
from vgs_ray.answers.brackets import balanced
from vgs_ray.answers.latex_commands import FUNCTIONS
from vgs_ray.answers.numerals import NUMBERS

MAX_BARS = 16
_REPEATED = re.compile(r"!{3,}|[-+]{3,}|([A-Za-z])\1{9,}|[A-Za-z]{60,}|(\\[A-Za-z]+ ?)\2{5,}|(?:[_^]\{[^{}]*){6,}")
MAX_WORDS = 4  # an answer with this many words that are neither units nor part of conditions is prose

_COMMANDS = set(
    """
    frac binom sqrt pi infty cdot times text overline dot hat vec tilde widehat widetilde overrightarrow mathbb
    mathcal mathfrak mathscr cancel overset begin end le ge ne lt gt approx equiv pmod bmod mod pm mp in notin cup
    cap setminus emptyset subset subseteq supset ldots to mid parallel perp angle triangle circ forall exists land
    lor neg Rightarrow Leftrightarrow mapsto sum prod int oint lim partial nabla lfloor rfloor lceil rceil langle
    rangle Vert sim cong propto star bullet oplus otimes mathbf ell Re Im arg deg dim ker hbar aleph square Box top
    bot dagger stackrel underbrace overbrace underset xrightarrow limsup liminf sup inf ne because so alpha beta
    gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma varsigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega arccot arcsec arccsc coth
    permil sinh cosh tanh min inf hline nmid quad
    """.split()
) | FUNCTIONS  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WORD = re.compile(r"(?<![A-Za-z\\])(?:[A-Za-z]{2,}|[\u0400-\u04ff]{2,})(?![A-Za-z\u0400-\u04ff])")
_CONDITION_WORDS = set(
    """
    if when where for all any every is are odd even prime integer integers positive negative real number numbers and
    or not mod base divisible by multiple of with such that otherwise the an values no solution solutions per square
    cubic units to from at least most than only both each than any other
    """.split()
)  # fmt: skip
_FOREIGN = re.compile(
    r"[^\x20-\x7e\u00a2-\u00a5\u20a0-\u20bf\u00c0-\u024f\u0400-\u04ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_DANGLING = re.compile(
    r"(?:^[*/^_=]|^\\(?:cdot|times|le|ge|ne|cup|cap|in)(?![A-Za-z])|(?:[-+*/^_=<>]|\\(?:cdot|times|le|ge|ne|cup|cap|in|pm))\s*$|[*/^_]{2,}|[-+*/=]\s*[*/=^_]|\\frac\{[^{}]*\}\{\}|\\(?:frac|overline|sqrt|text)\{\}|\d \d|\d\.\d+\.\d)"  # noqa: E501
)


def is_nonsense(text: str) -> bool:
    """Whether a normalized answer is no attempt at a mathematical answer: `x+`, `)(`, `aaaaaaaaaaaa`, `I am not sure here`."""
    if not re.search(r"[0-9A-Za-z\u3040-\u9fff\uac00-\ud7af]", text):
        return True
    if _FOREIGN.search(text) or not balanced(text) or _DANGLING.search(text):
        return True
    if _REPEATED.search(text) or text.count("|") > MAX_BARS:
        return True
    if any(name not in _COMMANDS for name in _COMMAND.findall(text.replace(r"\\", " "))):
        return True
    outside = re.sub(r"\\(?:begin|end)\{[^{}]*\}", "", text)
    words = [
        word
        for word in _WORD.findall(outside)
        if word.casefold() not in _CONDITION_WORDS | FUNCTIONS and word.casefold() not in NUMBERS
    ]
    prose = [word for word in words if units.name_of(word) is None and len(word) > 2]
    return len(prose) >= MAX_WORDS or len(re.findall(r"[\u3400-\u9fff\uac00-\ud7af]", text)) > 12
