"""The sandbox world: problems with exact answers, and the way a fallible solver writes about them.

In: a `random.Random`, a split and a `Skill`. Out: `Problem` objects, and the text of one solution attempt (a chain of
thought that ends in a boxed answer, or runs on without end). Pure standard library: the policies are trained on this
text, the data stages read the problems, and neither search nor value model ever imports this module.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Split = Literal["train", "validation", "benchmark"]

MODULUS = 19
SIGNS = {"add": "+", "subtract": "-", "multiply by": "*"}
FEWEST_STEPS, MOST_STEPS = 6, 10
ENDLESS_REPEATS = 48  # more than any token limit in use lets through


def as_latex(value: Fraction) -> str:
    """Write a non-negative fraction in lowest terms, as an integer where it is one."""
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def apply_step(value: int, verb: str, operand: int) -> int:
    """Carry out one step modulo `MODULUS`."""
    if verb == "add":
        return (value + operand) % MODULUS
    if verb == "subtract":
        return (value - operand) % MODULUS
    return (value * operand) % MODULUS


@dataclass(frozen=True)
class Problem:
    """A chain of single-digit operations on residues, perhaps followed by a division that gives a fraction."""

    start: int
    steps: tuple[tuple[str, int], ...]
    divisor: int | None

    @property
    def text(self) -> str:
        """The problem as the reader sees it."""
        lines = [f"Work modulo {MODULUS}. Start with {self.start}."]
        lines += [f"{number}) {verb} {operand}" for number, (verb, operand) in enumerate(self.steps, 1)]
        question = "What is the last value"
        ending = "?" if self.divisor is None else f" divided by {self.divisor}, as an ordinary fraction?"
        return "\n".join(lines) + "\n" + question + ending

    @property
    def values(self) -> list[int]:
        """The right value after every step."""
        found = [self.start]
        for verb, operand in self.steps:
            found.append(apply_step(found[-1], verb, operand))
        return found[1:]

    @property
    def answer(self) -> str:
        """The exact answer in LaTeX, in lowest terms."""
        return as_latex(Fraction(self.values[-1], self.divisor or 1))

    @property
    def split(self) -> Split:
        """The split a problem belongs to: a function of its text alone, so that splits can never overlap."""
        bucket = hashlib.sha256(self.text.encode()).digest()[0]
        return "benchmark" if bucket < 32 else "validation" if bucket < 64 else "train"


def draw_problem(rng: random.Random) -> Problem:
    """Draw a problem from any split."""
    length = rng.randint(FEWEST_STEPS, MOST_STEPS)
    verbs = list(SIGNS)
    steps = tuple((verb, rng.randint(2 if verb == "multiply by" else 1, 9)) for verb in rng.choices(verbs, k=length))
    return Problem(rng.randrange(MODULUS), steps, rng.randint(2, 9) if rng.random() < 0.5 else None)


def draw_problems(split: Split, rng: random.Random) -> Iterator[Problem]:
    """Draw different problems of one split without end."""
    seen: set[Problem] = set()
    while True:
        problem = draw_problem(rng)
        if problem.split == split and problem not in seen:
            seen.add(problem)
            yield problem


@dataclass(frozen=True)
class Skill:
    """How often a solver slips, notices and doubts. All are probabilities."""

    random_slip: tuple[float, float, float] = (0.03, 0.05, 0.14)  # add, subtract, multiply: any wrong residue
    systematic_slip: float = 0.58  # on a treacherous fact: always the same wrong residue
    corrects_random: float = 0.4
    corrects_systematic: float = 0.25
    hedges_slip: float = 0.8  # of the slips that are not corrected
    false_correction: float = 0.015
    false_hedge: float = 0.02
    lingering_hedge: float = 0.4  # at every later step while an uncorrected slip stands
    endless: float = 0.003  # chance at each step to fall into re-checking for ever ...
    endless_after_slip: float = 0.012  # ... and while an uncorrected slip stands
    unreduced: float = 0.3  # of the fractions


FLAWLESS = Skill((0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
REFERENCE = Skill()
WEAK = Skill(random_slip=(0.06, 0.08, 0.2), systematic_slip=0.68, endless=0.006, endless_after_slip=0.02)


def treacherous_result(value: int, verb: str, operand: int) -> int | None:
    """The fixed wrong result people remember for this fact, or None for a fact nobody gets wrong that way."""
    right = apply_step(value, verb, operand)
    if verb == "subtract" and value < operand:
        return (right - 1) % MODULUS  # crossing zero: one too low
    if verb == "multiply by" and operand >= 7 and value > MODULUS // 2:
        return (right + operand) % MODULUS  # the neighbouring row of a hard table
    return None


def _attempt(value: int, verb: str, operand: int, skill: Skill, rng: random.Random) -> tuple[int, float]:
    """Return the result written down and, if it is a slip, the chance that it gets corrected."""
    right = apply_step(value, verb, operand)
    wrong = treacherous_result(value, verb, operand)
    if wrong is not None and wrong != right and rng.random() < skill.systematic_slip:
        return wrong, skill.corrects_systematic
    if rng.random() < skill.random_slip[list(SIGNS).index(verb)]:
        return (right + rng.randrange(1, MODULUS)) % MODULUS, skill.corrects_random
    return right, skill.false_correction


def _write_step(
    value: int, verb: str, operand: int, doubtful: bool, skill: Skill, rng: random.Random
) -> tuple[str, int, bool]:
    """Write one step; return its text, the value carried on, and whether a new slip now stands."""
    right = apply_step(value, verb, operand)
    result, correction = _attempt(value, verb, operand, skill, rng)
    fact = f"{value}{SIGNS[verb]}{operand}="
    text = f"{fact}{result};"
    if rng.random() < correction:
        return f"{text} wait, {fact}{right};", right, False
    slipped = result != right
    hedge = skill.hedges_slip if slipped else skill.lingering_hedge if doubtful else skill.false_hedge
    return text + (" hmm;" if rng.random() < hedge else ""), result, slipped


def write_response(problem: Problem, skill: Skill, rng: random.Random) -> tuple[str, Fraction | None]:
    """Write what follows `<think>`; return it with the boxed value, or None where the thought never ends."""
    value, doubtful, text = problem.start, False, ""
    for number, (verb, operand) in enumerate(problem.steps, 1):
        step, value, slipped = _write_step(value, verb, operand, doubtful, skill, rng)
        text += f"\n{number}) {step}"
        doubtful = doubtful or slipped
        if rng.random() < (skill.endless_after_slip if doubtful else skill.endless):
            return text + " wait, let me check again;" * ENDLESS_REPEATS, None
    if problem.divisor is None:
        return f"{text}\nso {value}.\n</think>\nThe answer is \\boxed{{{value}}}", Fraction(value)
    boxed = Fraction(value, problem.divisor)
    latex = as_latex(boxed)
    if boxed.denominator not in (1, problem.divisor) and rng.random() < skill.unreduced:
        latex = rf"\frac{{{value}}}{{{problem.divisor}}}"
    return f"{text}\nso {value}/{problem.divisor}.\n</think>\nThe answer is \\boxed{{{latex}}}", boxed
