r"""Grading: the answer of a response, and whether it equals the gold answer.

`vgs_ray.grade` is the public interface. The modules, in the order in which an answer passes through them:

1. Find the answer
   - `extract`: the last complete `\boxed{}` after the end of the thought.
2. Normalize its text, so that `\dfrac12`, `{1\over2}` and `½` are one text
   - `normalize`: the rules and their order, `normalize_answer`.
   - `unicode_math`: Unicode signs as LaTeX.
   - `latex_commands`: LaTeX commands by what is done with them; functions and constants without a backslash.
   - `wrappers`: text around an answer, such as `Answer: 5` and `**5**`.
   - `numerals`: digits with commas, repeating decimals, ordinals, number words; exact fractions.
   - `brackets`: bracket depth, and splits outside of brackets.
3. Decide whether it may be compared
   - `costly`: answers that sympy would not finish.
   - `nonsense`: answers that are no mathematics.
4. Find its type
   - `answer_types`: mathematics, quantity, words, list, congruence, ...
   - `classify`: the type of a text.
   - `quantities`, `units`: numbers with units, and the table of units.
   - `conditions`: `3 if n is odd`.
   - `definitions`: `f(x)=x^2`, whose variable may have any name.
   - `inequalities`: `x>3 or x<-1` as a set of real numbers.
5. Compare it with the gold answer
   - `compare`: cheap rules first, then the comparison by type. Returns True, False or None with a reason.
   - `compare_types`: one rule for each pair of types.
   - `compare_math`, `compare_quantities`, `compare_words`: the rules for these types.
   - `latex_parser`: LaTeX to sympy objects.
   - `compare_sympy`: sympy objects: sets, relations, matrices, expressions.
   - `numeric`, `complex_variables`: expressions by their values at random points.
   - `three_valued`: comparison of lists with results True, False and None (unknown).
6. Stay within limits
   - `judge`: the comparison in processes with limits on time and memory.
"""
