"""Answers that sympy would never finish, told from their text alone. Pure."""

from __future__ import annotations

import re

_FACTORIAL = re.compile(r"(\d+|\([^()]*\)|\{[^{}]*\})\s*!")
_BINOMIAL = re.compile(r"binom\s*((?:\{(?:[^{}]|\{[^{}]*\})*\}\s*){1,2}|.{1,20})")
_TOWER = re.compile(r"\^\s*\{?\s*(\d+)\s*\^\s*\{?\s*(\d+)(\s*\^)?")
_LARGE_POWER = re.compile(r"\^\s*\{?\s*[+-]?\d{6,}")
MAX_EXPONENT = 10**6
MAX_DEPTH = 24  # of brackets


def too_costly(text: str) -> bool:
    """Whether sympy would try to write out a number of millions of digits, or recurse too deeply. Takes linear time.

    Such an answer ends in a time-out of seconds, and a policy that has lost its way writes many of them.
    """
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    factorial = any(re.search(r"\d{5,}|[\^!]", operand[1]) for operand in _FACTORIAL.finditer(text))
    binomial = any(re.search(r"\d{5,}|\^", arguments) for arguments in _BINOMIAL.findall(text))
    tower = any(
        further or len(base) > 6 or int(base) ** min(int(power), 64) > MAX_EXPONENT
        for base, power, further in _TOWER.findall(text)
    )
    return bool(deepest > MAX_DEPTH or factorial or binomial or tower or _LARGE_POWER.search(text))
