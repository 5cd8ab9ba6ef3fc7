"""Arrays in place of the Variables of ``flax.nnx``.

nnx puts every array of a model, and every array of an optimizer's state, into a
Variable, which is a node of the tree. Its class and metadata differ between parameters,
gradients and states, so such trees have different structures. The functions that take
several trees see the arrays instead, and return a tree with the Variables of the one
that they were given.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax


F = TypeVar("F", bound=Callable[..., Any])


def without_variables(tree: Any) -> Any:
    """Return the tree with the content of each Variable in place of the Variable.

    Args:
      tree: Any tree.

    Returns:
      The same object if the tree has no Variables.

    >>> without_variables({"kernel": 1.0})
    {'kernel': 1.0}
    """
    found = _flatten(tree)
    if found is None:
        return tree
    leaves, treedef = found
    return treedef.unflatten(
        without_variables(_inside(x)[0]) if _is_variable(x) else x for x in leaves
    )


def with_variables(tree: Any, like: Any) -> Any:
    """Return the tree with its arrays in the Variables of another tree.

    Args:
      tree: A tree without Variables.
      like: A tree that may have some. If it is different apart from them, ``tree``
        stays as it is.

    >>> with_variables({"kernel": 1.0}, {"kernel": 2.0})
    {'kernel': 1.0}
    """
    found = _flatten(like)
    if found is None:
        return tree
    leaves, treedef = found
    try:
        contents = treedef.flatten_up_to(tree)
    except ValueError:
        return tree
    return treedef.unflatten(
        _filled(x, content) if _is_variable(x) else content
        for x, content in zip(leaves, contents, strict=True)
    )


def _flatten(tree: Any) -> tuple[list[Any], Any] | None:
    """Return the leaves, Variables among them, and the structure; None without any."""
    if "flax.nnx" not in sys.modules:  # jopt does not import it
        return None

    # A node without leaves may carry numbers of a trace (`metrics.Seen`). Rebuilding it
    # would lose them, so empty tuples stay whole.
    def is_whole(x):
        return _is_variable(x) or (isinstance(x, tuple) and not x)

    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_whole)
    return (leaves, treedef) if any(map(_is_variable, leaves)) else None


def _is_variable(x: Any) -> bool:
    return _is_variable_class(type(x))


@functools.cache  # isinstance takes three times as long for a Variable
def _is_variable_class(cls: type) -> bool:
    return issubclass(cls, getattr(sys.modules["flax.nnx"], "Variable", ()))


def _inside(variable: Any) -> tuple[Any, Any]:
    """Return the content of a Variable, and the structure of the Variable alone."""
    (content,), treedef = jax.tree.flatten(variable, lambda x: x is not variable)
    return content, treedef


def _filled(variable: Any, content: Any) -> Any:
    old, treedef = _inside(variable)
    return treedef.unflatten([with_variables(content, old)])


def sees_arrays(*result: str) -> Callable[[F], F]:
    """Decorate a function that sees the content of Variables in its arguments.

    Args:
      *result: The arguments whose Variables the results get; none returns the result as
        it is.

    >>> @sees_arrays("params")
    ... def halve(params):
    ...     return jax.tree.map(lambda p: p / 2, params)
    >>> halve({"kernel": 1.0})
    {'kernel': 0.5}
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def decorated(*args, **kwargs):
            given = (args, kwargs)
            bare_args, bare_kwargs = bare = without_variables(given)
            out = function(*bare_args, **bare_kwargs)
            if bare is given or not result:
                return out
            bound = signature.bind(*args, **kwargs).arguments
            likes = [bound.get(name) for name in result]
            if len(likes) == 1:
                return with_variables(out, *likes)
            return tuple(map(with_variables, out, likes))

        return decorated

    return decorate  # type: ignore[return-value]
