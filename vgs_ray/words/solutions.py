r"""Steps to the text of a solution: one step a line, then the answer in `\boxed{}`.

In: a problem and its steps. Out: text. The wording of each line is drawn by a hash of the problem. Pure functions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from vgs_ray.data.ids import problem_id, stable_seed
from vgs_ray.words.formulas import Step, decimal_text

FIRST = ("First, {step}.", "{step}.", "Start with {step}.", "{words}: {step}.")
LATER = ("Then {step}.", "{step}.", "Next, {step}.", "Now {step}.", "{words}: {step}.")
CONCLUSION = (r"The answer is \boxed{{{answer}}}.", r"So the answer is \boxed{{{answer}}}.")
WORDS = {
    "+": "Add {right} to {left}",
    "-": "Take {right} from {left}",
    "*": "Multiply {left} by {right}",
    "/": "Divide {left} by {right}",
}


def solution(problem: str, steps: Sequence[Step], seed: int = 0) -> str:
    """The solution of a problem.

    Args:
        problem: its text.
        steps: one or more steps, of which the last one gives the answer.
        seed: other seeds give other wordings.
    """
    rng = random.Random(stable_seed(seed, problem_id(problem)))
    lines = [_line(step, rng.choice(LATER if index else FIRST)) for index, step in enumerate(steps)]
    return "\n".join([*lines, rng.choice(CONCLUSION).format(answer=decimal_text(steps[-1].result))])


def _line(step: Step, wording: str) -> str:
    return wording.format(step=step, words=_words(step.left, step.sign, step.right))


def _words(left: Fraction, sign: str, right: Fraction) -> str:
    return WORDS[sign].format(left=decimal_text(left), right=decimal_text(right))
