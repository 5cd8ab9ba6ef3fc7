"""optax: for the places that look at the class, and for a name of one's own.

jopt transformations work inside ``optax.chain``, ``masked``, ``MultiSteps`` and so on
as they are, and optax's inside `jopt.chain`. `as_optax` is for what checks for optax's
class: ``numpyro.infer.SVI``, type checkers, and ``optax.chain``, which hands extra
arguments to that class only.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
