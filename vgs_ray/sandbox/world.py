"""The sandbox world: problems with exact answers, and responses of a solver that makes mistakes.

In: a `random.Random`, a split and a `Skill`. Out: `Problem` objects, and the text of a response (a thought with a boxed answer
after it, or a thought without end). Standard library only. The policies are trained on these responses, and the data stages read
the problems. Search and the value model do not import this module.
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
ENDLESS_REPEATS = 48  # longer than any token limit in use


def as_latex(value: Fraction) -> str:
    """A non-negative fraction in lowest terms, or an integer, as LaTeX."""
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def apply_step(value: int, verb: str, operand: int) -> int:
    """The result of one step modulo `MODULUS`."""
    if verb == "add":
        return (value + operand) % MODULUS
    if verb == "subtract":
        return (value - operand) % MODULUS
    return (value * operand) % MODULUS


@dataclass(frozen=True)
class Problem:
    """A chain of single-digit operations modulo `MODULUS`, optionally followed by a division that gives a fraction."""

    start: int
    steps: tuple[tuple[str, int], ...]
    divisor: int | None

    @property
    def text(self) -> str:
        """The text of the problem."""
        lines = [f"Work modulo {MODULUS}. Start with {self.start}."]
        lines += [f"{number}) {verb} {operand}" for number, (verb, operand) in enumerate(self.steps, 1)]
        question = "What is the last value"
        ending = "?" if self.divisor is None else f" divided by {self.divisor}, as an ordinary fraction?"
        return "\n".join(lines) + "\n" + question + ending

    @property
    def values(self) -> list[int]:
        """The correct value after each step."""
        values = [self.start]
        for verb, operand in self.steps:
            values.append(apply_step(values[-1], verb, operand))
        return values[1:]

    @property
    def answer(self) -> str:
        """The exact answer in LaTeX, in lowest terms."""
        return as_latex(Fraction(self.values[-1], self.divisor or 1))

    @property
    def split(self) -> Split:
        """The split of the problem. It depends only on the text, so splits never overlap."""
        bucket = hashlib.sha256(self.text.encode()).digest()[0]
        return "benchmark" if bucket < 32 else "validation" if bucket < 64 else "train"


def draw_problem(rng: random.Random) -> Problem:
    """Draw a problem from any split."""
    length = rng.randint(FEWEST_STEPS, MOST_STEPS)
    verbs = list(SIGNS)
    steps = tuple((verb, rng.randint(2 if verb == "multiply by" else 1, 9)) for verb in rng.choices(verbs, k=length))
    return Problem(rng.randrange(MODULUS), steps, rng.randint(2, 9) if rng.random() < 0.5 else None)


def draw_problems(split: Split, rng: random.Random) -> Iterator[Problem]:
    """Draw distinct problems of one split in an endless stream."""
    seen: set[Problem] = set()
    while True:
        problem = draw_problem(rng)
        if problem.split == split and problem not in seen:
            seen.add(problem)
            yield problem


@dataclass(frozen=True)
class Skill:
    """The probabilities of mistakes (slips), corrections and doubts (hedges) of a solver."""

    random_slip: tuple[float, float, float] = (0.03, 0.05, 0.14)  # add, subtract, multiply: any incorrect residue
    systematic_slip: float = 0.58  # on a difficult fact: always the same incorrect residue
    corrects_random: float = 0.4
    corrects_systematic: float = 0.25
    hedges_slip: float = 0.8  # of the slips that are not corrected
    false_correction: float = 0.015
    false_hedge: float = 0.02
    lingering_hedge: float = 0.4  # at each step after an uncorrected slip
    endless: float = 0.003  # probability at each step that the thought never ends
    endless_after_slip: float = 0.012  # the same after an uncorrected slip
    unreduced: float = 0.3  # of the fractions


FLAWLESS = Skill((0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
REFERENCE = Skill()
WEAK = Skill(random_slip=(0.06, 0.08, 0.2), systematic_slip=0.68, endless=0.006, endless_after_slip=0.02)


def systematic_error(value: int, verb: str, operand: int) -> int | None:
    """The incorrect result of a systematic slip on a difficult fact. None for other facts."""
    right = apply_step(value, verb, operand)
    if verb == "subtract" and value < operand:
        return (right - 1) % MODULUS  # a difference below zero: one too low
    if verb == "multiply by" and operand >= 7 and value > MODULUS // 2:
        return (right + operand) % MODULUS  # a large product: the next multiple
    return None


def _attempt(value: int, verb: str, operand: int, skill: Skill, rng: random.Random) -> tuple[int, float]:
    """The result that the solver writes, and the probability that it then corrects it."""
    right = apply_step(value, verb, operand)
    wrong = systematic_error(value, verb, operand)
    if wrong is not None and wrong != right and rng.random() < skill.systematic_slip:
        return wrong, skill.corrects_systematic
    if rng.random() < skill.random_slip[list(SIGNS).index(verb)]:
        return (right + rng.randrange(1, MODULUS)) % MODULUS, skill.corrects_random
    return right, skill.false_correction


def _write_step(
    value: int, verb: str, operand: int, doubtful: bool, skill: Skill, rng: random.Random
) -> tuple[str, int, bool]:
    """Write one step. Returns its text, the value for the next step, and whether it is an uncorrected slip."""
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
    """Write the text after `<think>`. Returns it with the boxed value, or None if the thought never ends."""
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
