"""Names that optax still has, with the warning that it gives for them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar


P = ParamSpec("P")
R = TypeVar("R")


def deprecated(instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that optax's users should no longer call.

    Args:
      instead: What to call in its place.

    >>> @deprecated("optax.tree.norm")
    ... def global_norm(updates): ...
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     global_norm({})
    >>> print(caught[0].message)
    global_norm is deprecated in optax: use optax.tree.norm
    """

    def decorate(function):
        @functools.wraps(function)
        def warning(*args, **kwargs):
            warn_deprecated(function.__name__, instead, stacklevel=3)
            return function(*args, **kwargs)

        return warning

    return decorate


def warn_deprecated(name: str, instead: str, stacklevel: int) -> None:
    """Warn of a deprecated name.

    Args:
      name: The name.
      instead: What to use in its place.
      stacklevel: As of `warnings.warn`, for the caller of this function.
    """
    warnings.warn(
        f"{name} is deprecated in optax: use {instead}",
        DeprecationWarning,
        stacklevel=stacklevel + 1,
    )
