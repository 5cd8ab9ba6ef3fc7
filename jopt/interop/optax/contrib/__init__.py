"""The names of ``optax.contrib``."""

from typing import Any

from jopt.values.page import public_page


_load, __dir__, __all__ = public_page(__name__, __file__)


def __getattr__(name: str) -> Any:
    from jopt.interop.optax.explained import explained  # which loads jax

    return explained(_load(name))
