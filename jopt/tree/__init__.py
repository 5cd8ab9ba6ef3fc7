"""PyTree arithmetic: the functions of ``optax.tree``, and those that algorithms share.

Every function takes trees of arrays, in which None is not a leaf. Sums, norms and
products are computed in float32 or wider, so float16 does not overflow and bfloat16
does not stagnate; each result is rounded once, to the dtype of its leaf. Trees that do
not match raise an error that names the leaf.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
