r"""Whether two sympy objects are equal; `None` where nobody knows.

Equality of expressions is decided by their values, see `vgs_ray.answers.numeric`; sympy is imported on first use.
"""

from __future__ import annotations

from typing import Any

from vgs_ray.answers import complex_variables, numeric
from vgs_ray.answers.latex_parser import library, load, parse
from vgs_ray.answers.three_valued import Truth, all_true, same_in_order, same_members

__all__ = ["load", "objects_equal", "parse", "sets_equal"]


def objects_equal(gold: Any, answer: Any) -> Truth:
    """Whether two sympy objects are the same number, expression, list, set, relation or matrix."""
    import sympy
    from sympy.core.relational import Relational

    if type(gold) is type(answer) and gold == answer:
        return not gold.has(sympy.nan, sympy.zoo)
    gold, answer = _single(gold), _single(answer)
    relations = [isinstance(value, Relational) or type(value).__name__ == "And" for value in (gold, answer)]
    if any(relations) and not all(relations):
        return _relation_and_value(gold, answer) if relations[0] else _relation_and_value(answer, gold)
    matrices = [isinstance(value, sympy.MatrixBase) for value in (gold, answer)]
    if any(matrices):
        return _matrices(gold, answer) if all(matrices) else _vector_and_tuple(gold, answer)
    if all(relations):
        return _relations(gold, answer)
    if any(isinstance(value, sympy.Set | sympy.Tuple) for value in (gold, answer)):
        return _collections(gold, answer)
    if all(isinstance(value, sympy.Expr) for value in (gold, answer)):
        found = numeric.expressions_equal(gold, answer)
        return (
            complex_variables.agree_at_complex_points(gold, answer)
            if found and complex_variables.complex_letters(gold, answer)
            else found
        )
    return verified(gold, answer)


def verified(gold: Any, answer: Any) -> bool:
    """What math-verify says, both ways round, for objects that have no comparison here."""
    verify = library()[0].verify
    return any(verify(*pair, timeout_seconds=None, raise_on_error=True) for pair in ((gold, answer), (answer, gold)))


def _single(value: Any) -> Any:
    """A set of one member as that member."""
    import sympy

    return value.args[0] if isinstance(value, sympy.FiniteSet) and len(value.args) == 1 else value


def _matrices(gold: Any, answer: Any) -> Truth:
    return same_in_order(list(gold), list(answer), objects_equal) if gold.shape == answer.shape else False


def _vector_and_tuple(gold: Any, answer: Any) -> Truth:
    """A column and a tuple of the same numbers may be the same vector."""
    import sympy

    vector, other = (gold, answer) if isinstance(gold, sympy.MatrixBase) else (answer, gold)
    if isinstance(other, sympy.Interval):
        other = sympy.Tuple(other.start, other.end)
    if not isinstance(other, sympy.Tuple) or 1 not in vector.shape:
        return False
    return None if same_in_order(list(vector), list(other), objects_equal) is not False else False


def _collections(gold: Any, answer: Any) -> Truth:
    """Sets, tuples and intervals. An open interval and a pair are written alike."""
    import sympy

    if not all(isinstance(value, sympy.Set | sympy.Tuple) for value in (gold, answer)):
        several, one = (gold, answer) if isinstance(gold, sympy.Set | sympy.Tuple) else (answer, gold)
        restated = (
            isinstance(several, sympy.FiniteSet)
            and all(objects_equal(member, one) for member in several.args)
            and several.args
        )
        return None if restated else False
    first, second = _pair_or_set(gold, answer), _pair_or_set(answer, gold)
    if isinstance(first, sympy.Tuple) and isinstance(second, sympy.Tuple):
        return same_in_order(first.args, second.args, objects_equal)
    listed = [isinstance(value, sympy.FiniteSet | sympy.Tuple) for value in (first, second)]
    if all(listed):
        ordered = same_in_order(_written(first), _written(second), objects_equal)
        if _named_apart(first) != _named_apart(second):
            return None if same_members(first.args, second.args, objects_equal) is not False else False
        if ordered or not any(isinstance(value, sympy.Tuple) for value in (first, second)):
            return ordered or same_members(first.args, second.args, objects_equal)
        return None if same_members(first.args, second.args, objects_equal) else False
    return (
        False
        if any(listed) and any(isinstance(value, sympy.Tuple) for value in (first, second))
        else sets_equal(first, second)
    )


def _named_apart(values: Any) -> bool:
    """Whether a list gives values to several names, such as a = 2, d = 3: then its order says nothing to a list without names."""
    import sympy

    return len({value.lhs for value in values.args if isinstance(value, sympy.Eq)}) > 1


def _written(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, "_unsorted_args", None) or value.args)


def _pair_or_set(value: Any, other: Any) -> Any:
    import sympy

    if isinstance(value, sympy.Interval) and value.is_open and isinstance(other, sympy.Tuple | sympy.FiniteSet):
        return sympy.Tuple(value.start, value.end)
    return value


def sets_equal(gold: Any, answer: Any) -> Truth:
    """Whether two sets of real numbers are the same: intervals by their ends, unions part by part."""
    import sympy

    first, second = (_simplified(value) for value in (gold, answer))
    if first == second:
        return True
    if isinstance(first, sympy.Interval) and isinstance(second, sympy.Interval):
        if (first.left_open, first.right_open) != (second.left_open, second.right_open):
            return False
        return all_true(objects_equal(*ends) for ends in ((first.start, second.start), (first.end, second.end)))
    if isinstance(first, sympy.FiniteSet) and isinstance(second, sympy.FiniteSet):
        return same_members(first.args, second.args, objects_equal)
    if isinstance(first, sympy.Union) and isinstance(second, sympy.Union):
        return same_members(first.args, second.args, sets_equal)
    kinds = (sympy.Interval, sympy.FiniteSet, sympy.Union, sympy.core.singleton.S.EmptySet.func)
    if all(isinstance(value, kinds) for value in (first, second)):
        return False
    return True if verified(first, second) else None


def _simplified(value: Any) -> Any:
    import sympy

    try:
        return (
            sympy.simplify(value.doit())
            if isinstance(value, sympy.Complement | sympy.Intersection | sympy.Union)
            else value
        )
    except Exception:
        return value


def is_name(value: Any) -> bool:
    """Whether the left side of an equation only names its right side: `x`, `f(x)`, `AB`, `a_n`."""
    import sympy
    from sympy.core.function import AppliedUndef

    if isinstance(value, sympy.Mul):
        return all(map(is_name, value.args))
    if isinstance(value, sympy.Pow):
        return value.exp == -1 and is_name(value.base)
    if isinstance(value, sympy.Abs):
        return is_name(value.args[0])
    return isinstance(value, sympy.Symbol | AppliedUndef | sympy.Tuple) or value in (sympy.E, sympy.I)


def _relation_and_value(relation: Any, value: Any) -> Truth:
    """`x = 5` against 5. An equation with more on its left side, such as x + y = 5, may be the answer itself or its way to 5."""
    import sympy

    last = relation._unsorted_args[-1] if type(relation).__name__ == "And" else relation
    first = relation._unsorted_args[0] if type(relation).__name__ == "And" else relation
    if not isinstance(last, sympy.Eq):
        return False
    found = objects_equal(last.rhs, value)
    if found is False and isinstance(value, sympy.Set) and isinstance(last.lhs, sympy.Symbol):
        return False
    if found and (is_name(first.lhs) or not first.lhs.free_symbols):
        return _consistent(relation)
    return None if found else found


def _consistent(relation: Any) -> Truth:
    """Of `x = 2 + 3 = 6`, where all that are numbers must be equal."""
    links = relation._unsorted_args if type(relation).__name__ == "And" else [relation]
    numbers = [side for link in links for side in (link.lhs, link.rhs) if getattr(side, "is_number", False)]
    return all_true(objects_equal(number, numbers[-1]) for number in numbers[:-1])


def _relations(gold: Any, answer: Any) -> Truth:
    import sympy

    equations = [isinstance(value, sympy.Eq) for value in (gold, answer)]
    if all(equations):
        if gold.lhs == answer.lhs and is_name(gold.lhs):
            return objects_equal(gold.rhs, answer.rhs)
        if isinstance(gold.lhs, sympy.Tuple) and isinstance(answer.lhs, sympy.Tuple):
            return None
        if isinstance(gold.lhs, sympy.Tuple) or isinstance(answer.lhs, sympy.Tuple) or not _plain_sides(gold, answer):
            return verified(gold, answer)
        found = numeric.proportional(gold.lhs - gold.rhs, answer.lhs - answer.rhs)
        if complex_variables.complex_letters(gold, answer):
            agree = found and complex_variables.agree_at_complex_points(
                gold.lhs - gold.rhs, answer.lhs - answer.rhs, ratio=True
            )
            return agree or None
        return found or _solutions_same(gold, answer)
    if not any(equations) and all(isinstance(value, sympy.Rel) for value in (gold, answer)):
        first, second = (numeric.at_least_zero(value) for value in (gold, answer))
        if first[0] == second[0] and numeric.proportional(first[1], second[1], positive=first[0] != "!="):
            return True
    if type(gold) is not type(answer) or not gold.free_symbols:
        return None if verified(gold, answer) else False
    return verified(gold, answer)


def _solutions_same(gold: Any, answer: Any) -> Truth:
    """Whether two equations have the same solutions; None where one has none that sympy finds."""
    import sympy

    first, second = (
        sympy.Eq(numeric.without_functions(side.lhs), numeric.without_functions(side.rhs), evaluate=False)
        for side in (gold, answer)
    )
    if any(side.has(sympy.Derivative, sympy.Integral) for side in (first, second)):
        return None
    if not (first.free_symbols and second.free_symbols and sympy.solve(first) and sympy.solve(second)):
        return None if first.free_symbols or second.free_symbols else False
    return verified(first, second)


def _plain_sides(*relations: Any) -> bool:
    import sympy

    return all(isinstance(side, sympy.Expr) for relation in relations for side in (relation.lhs, relation.rhs))
