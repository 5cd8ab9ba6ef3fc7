"""optax: its whole API on jopt's engine, and ways between the two.

``from jopt.interop import optax`` has the names, arguments, numbers and states of
optax 0.2.8. Transformations of both libraries, and pairs of one's own, may stand in its
chains.

jopt's own transformations work unwrapped in ``optax.chain``, ``masked``, ``MultiSteps``
and others, and optax's in `jopt.chain`. `as_optax` is for code that checks for optax's
class: ``numpyro.infer.SVI``, type checkers, and ``optax.chain``, which passes extra
arguments only to that class. `from_optax` names the state of an optax transformation.
"""

from typing import Any

from jopt.values.page import public_page


_load, __dir__, __all__ = public_page(__name__, __file__)


def __getattr__(name: str) -> Any:
    from jopt.interop.optax.explained import explained  # which loads jax

    return explained(_load(name))
