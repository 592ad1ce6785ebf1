"""Answers that sympy would not finish, such as `9^{9^{9^{9}}}`, recognized by their text. Pure."""

from __future__ import annotations

import re

_FACTORIAL = re.compile(r"(\d+|\([^()]*\)|\{[^{}]*\})\s*!|\\Gamma\s*(.{1,40})")
_BINOMIAL = re.compile(r"binom\s*((?:\{(?:[^{}]|\{[^{}]*\})*\}\s*){1,2}|.{1,20})")
_TOWER = re.compile(r"\^\s*\{?\s*(\d+)\s*\^\s*\{?\s*(\d+)(\s*\^)?")
_LARGE_POWER = re.compile(r"\^\s*\{?\s*[+-]?\d{6,}")
_POWER = re.compile(r"\^\s*\{?\s*(\d{1,9})")
_POWER_OF_BRACKET = re.compile(r"\)\s*\^\s*\{?\s*\d")
_TOWER_SIGN = re.compile(r"\^\{|[{}]")
MAX_TOWER = 4
MAX_EXPONENT = 10**6
MAX_DEPTH = 24  # of brackets


def too_costly(text: str) -> bool:
    r"""Whether sympy would compute a number with millions of digits, or recurse too deeply. Takes linear time.

    `2^{12345678}`, `(10^{10})!`, `\binom{10^9}{5}` and `((((...))))` are costly; `2^{2004}` and `2004!` are not. Comparing a
    costly answer would take until its time limit, and a policy that runs out of control writes many of them.
    """
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    factorial = any(re.search(r"\d{5,}|[\^!]", operand[1] or operand[2]) for operand in _FACTORIAL.finditer(text))
    binomial = any(re.search(r"\d{5,}|\^", arguments) for arguments in _BINOMIAL.findall(text))
    tower = any(
        further or len(base) > 6 or int(base) ** min(int(power), 64) > MAX_EXPONENT
        for base, power, further in _TOWER.findall(text)
    )
    large = _LARGE_POWER.search(text) or _powers_of_powers(text) > MAX_EXPONENT
    return bool(deepest > MAX_DEPTH or factorial or binomial or tower or large or _high_tower(text))


def _powers_of_powers(text: str) -> int:
    """The product of all numbers in exponents, if a bracket has an exponent: `(2^{99999})^{99999}`. 0 otherwise."""
    if not _POWER_OF_BRACKET.search(text):
        return 0
    product = 1
    for power in _POWER.findall(text):
        product = min(product * max(int(power), 1), 10**9)
    return product


def _high_tower(text: str) -> bool:
    """Whether exponents are nested `MAX_TOWER` deep or more: `e^{e^{e^{e^{5}}}}`."""
    height, depth, opened = 0, 0, list[int]()
    for sign in _TOWER_SIGN.findall(text):
        if sign[0] == "^":
            opened.append(depth)
            height = max(height, len(opened))
        depth += ("{" in sign) - (sign == "}")
        while opened and sign == "}" and opened[-1] >= depth:
            opened.pop()
    return height >= MAX_TOWER
