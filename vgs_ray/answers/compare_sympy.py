r"""Compare two sympy objects: expressions, lists, sets, relations, matrices. None means unknown.

Expressions are compared by their values, see `vgs_ray.answers.numeric`. sympy is imported on first use.
"""

from __future__ import annotations

from typing import Any

from vgs_ray.answers import complex_variables, numeric
from vgs_ray.answers.latex_parser import library, load, parse
from vgs_ray.answers.three_valued import Truth, all_true, same_in_order, same_members

__all__ = ["load", "objects_equal", "parse", "sets_equal"]


def objects_equal(gold: Any, answer: Any) -> Truth:
    """Whether two sympy objects are equal: numbers, expressions, lists, sets, relations or matrices."""
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
        return _expressions(gold, answer)
    return verified(gold, answer)


def _expressions(gold: Any, answer: Any) -> Truth:
    equal = numeric.expressions_equal(gold, answer)
    if equal and complex_variables.possibly_complex(gold, answer):
        return complex_variables.agree_at_complex_points(gold, answer)
    return equal


def verified(gold: Any, answer: Any) -> bool:
    """The result of math-verify, in either order of arguments, for objects without a rule here."""
    verify = library()[0].verify
    return any(verify(*pair, timeout_seconds=None, raise_on_error=True) for pair in ((gold, answer), (answer, gold)))


def _single(value: Any) -> Any:
    """The member of a set with one member; any other object unchanged."""
    import sympy

    return value.args[0] if isinstance(value, sympy.FiniteSet) and len(value.args) == 1 else value


def _matrices(gold: Any, answer: Any) -> Truth:
    return same_in_order(list(gold), list(answer), objects_equal) if gold.shape == answer.shape else False


def _vector_and_tuple(gold: Any, answer: Any) -> Truth:
    """A column vector and a tuple of the same numbers are unknown: both may denote the same vector."""
    import sympy

    vector, other = (gold, answer) if isinstance(gold, sympy.MatrixBase) else (answer, gold)
    if isinstance(other, sympy.Interval):
        other = sympy.Tuple(other.start, other.end)
    if not isinstance(other, sympy.Tuple) or 1 not in vector.shape:
        return False
    return None if same_in_order(list(vector), list(other), objects_equal) is not False else False


def _collections(gold: Any, answer: Any) -> Truth:
    """Compare sets, tuples and intervals. `(1,2)` may be an open interval or a pair."""
    import sympy

    if not all(isinstance(value, sympy.Set | sympy.Tuple) for value in (gold, answer)):
        several, one = (gold, answer) if isinstance(gold, sympy.Set | sympy.Tuple) else (answer, gold)
        repeated = isinstance(several, sympy.FiniteSet) and several.args
        return None if repeated and all(objects_equal(member, one) for member in several.args) else False
    first, second = _pair_or_set(gold, answer), _pair_or_set(answer, gold)
    if isinstance(first, sympy.Tuple) and isinstance(second, sympy.Tuple):
        return same_in_order(first.args, second.args, objects_equal)
    has_tuple = any(isinstance(value, sympy.Tuple) for value in (first, second))
    listed = [isinstance(value, sympy.FiniteSet | sympy.Tuple) for value in (first, second)]
    if all(listed):
        ordered = same_in_order(_written(first), _written(second), objects_equal)
        if _has_names(first) != _has_names(second):
            return None if same_members(first.args, second.args, objects_equal) is not False else False
        if ordered or not has_tuple:
            return ordered or same_members(first.args, second.args, objects_equal)
        return None if same_members(first.args, second.args, objects_equal) else False
    return False if any(listed) and has_tuple else sets_equal(first, second)


def _has_names(values: Any) -> bool:
    """Whether a list gives values to several names, as in `a=2, d=3`. Its order does not matter for a list without names."""
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
    """Whether two sets of real numbers are equal: intervals by their ends, unions part by part."""
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
    """Whether the left side of an equation is only a name for its right side: `x`, `f(x)`, `AB`, `a_n`."""
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
    """`x=5` equals `5`. `x+y=5` and `5` are unknown, since the equation may be the answer or a step towards it."""
    import sympy

    last = relation._unsorted_args[-1] if type(relation).__name__ == "And" else relation
    first = relation._unsorted_args[0] if type(relation).__name__ == "And" else relation
    if not isinstance(last, sympy.Eq):
        return False
    equal = objects_equal(last.rhs, value)
    if equal and (is_name(first.lhs) or not first.lhs.free_symbols):
        return _consistent(relation)
    return None if equal else equal


def _consistent(relation: Any) -> Truth:
    """Whether all numbers in a chain are equal: not in `x = 2+3 = 6`."""
    links = relation._unsorted_args if type(relation).__name__ == "And" else [relation]
    numbers = [side for link in links for side in (link.lhs, link.rhs) if getattr(side, "is_number", False)]
    return all_true(objects_equal(number, numbers[-1]) for number in numbers[:-1])


def _relations(gold: Any, answer: Any) -> Truth:
    import sympy

    equations = [isinstance(value, sympy.Eq) for value in (gold, answer)]
    if all(equations):
        return _equations(gold, answer)
    if not any(equations) and all(isinstance(value, sympy.Rel) for value in (gold, answer)):
        first, second = (numeric.at_least_zero(value) for value in (gold, answer))
        if first[0] == second[0] and numeric.proportional(first[1], second[1], positive=first[0] != "!="):
            return True
    if type(gold) is not type(answer) or not gold.free_symbols:
        return None if verified(gold, answer) else False
    return verified(gold, answer)


def _equations(gold: Any, answer: Any) -> Truth:
    """`x+y=1` equals `2x+2y=2`: the differences of the sides are proportional."""
    import sympy

    if gold.lhs == answer.lhs and is_name(gold.lhs):
        return objects_equal(gold.rhs, answer.rhs)
    tuples = [isinstance(value.lhs, sympy.Tuple) for value in (gold, answer)]
    if all(tuples):
        return None
    if any(tuples) or not _plain_sides(gold, answer):
        return verified(gold, answer)
    first, second = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    proportional = numeric.proportional(first, second)
    if complex_variables.possibly_complex(gold, answer):
        return (proportional and complex_variables.agree_at_complex_points(first, second, ratio=True)) or None
    return proportional or _same_solutions(gold, answer)


def _same_solutions(gold: Any, answer: Any) -> Truth:
    """Whether two equations have the same solutions. None if sympy finds no solutions of one of them."""
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
