"""PyTree arithmetic: the functions of ``optax.tree``, and what algorithms share.

Every function takes trees of arrays in which None is no leaf. Sums, norms and products
are computed in float32 or wider, so nothing overflows in float16 or stands still in
bfloat16; a result is rounded once, to the dtype of its leaf. Trees that do not match
are an error that names the leaf.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
