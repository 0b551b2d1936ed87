"""Python that decides what the engine should decide: refused in the line where it stands."""

from __future__ import annotations

import ast
import inspect
import textwrap

from tilewright.rules.registry import Rule, RuleWritingError

_WORDS = {ast.And: "and", ast.Or: "or"}


def check_writing(made: Rule) -> None:
    """Refuse `if`, `and`, `or` and `not` in a rule: Python runs them once, before any tensor is seen.

    Raises:
        RuleWritingError: The rule's function has one of them.
    """
    function = inspect.unwrap(made.function)
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return  # made by a program, without text
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # a part of an expression, such as a lambda
    for node in ast.walk(tree):
        word = _word(node)
        if word is None:
            continue
        code = function.__code__
        line = code.co_firstlineno + getattr(node, "lineno", 1) - 1
        raise RuleWritingError(
            f"{code.co_filename}:{line}: rule '{made.name}' has a Python '{word}', which runs once "
            "before any tensor is seen; write conditions as facts in `when`, and two cases as two rules"
        )


def _word(node: ast.AST) -> str | None:
    match node:
        case ast.If() | ast.IfExp():
            return "if"
        case ast.BoolOp(op=op):
            return _WORDS[type(op)]
        case ast.UnaryOp(op=ast.Not()):
            return "not"
    return None
