"""Complex leaves as pairs of real numbers, as in torch.

    Re u, Im u <- inner(Re g), inner(Im g)

jopt's algorithms treat a complex number as one number, so its second moment is that of
its magnitude. torch treats it as two numbers with two second moments. State: that of
the inner transformation. The slot of a complex leaf is complex, as in torch: its real
part belongs to the real part of the leaf. If the inner transformation is not a rule for
single elements, its slots have the shape (…, 2) instead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp

from jopt.core.around import in_place_of
from jopt.core.chain import Chain, as_transformation
from jopt.core.declaration import Declaration
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.leafwise import Leafwise
from jopt.core.slots import Slot
from jopt.core.transformation import GradientTransformation
from jopt.values.recipe import Recipe


@transformation
def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """Let a transformation see a complex leaf as its real and imaginary parts.

    The optimizers of ``jopt.interop.torch`` do it by themselves. Real leaves get the
    same numbers and the same state as without it.

    Args:
      inner: A transformation.

    Returns:
      A transformation.

    Equal to ``optax.contrib.split_real_and_imaginary``, whose state has two arrays for
    a complex leaf.

    >>> import jopt
    >>> g = jnp.array([3 + 0.1j])
    >>> for tx in (jopt.adam(1.0), jopt.split_real_and_imaginary(jopt.adam(1.0))):
    ...     print(tx.update(g, tx.init(g), g)[0].round(2))
    [-1.-0.03j]
    [-1.-1.j]
    """
    inner = as_transformation(inner, "split_real_and_imaginary: inner")
    if isinstance(inner, Chain):
        return Chain([(name, _split(tx)) for name, tx in inner.members])
    return _split(inner)


def _split(inner: GradientTransformation) -> GradientTransformation:
    if isinstance(inner, Leafwise) and _by_element(inner.declaration):
        return _SplitLeafwise(inner)
    return _split_trees(inner)


def _by_element(declaration: Declaration) -> bool:
    """Whether neither scalars nor slots depend on whole leaves."""
    reduces = any(slot.over or slot.each for slot in declaration.slots.values())
    trees = {"updates", "params", *declaration.slots}
    return not reduces and not trees & declaration.inputs


class _SplitLeafwise(Leafwise):
    """A leafwise transformation whose rule sees pairs; it runs in the same kernels."""

    inner: Leafwise

    def __new__(cls, inner: Leafwise, *, recipe: Recipe | None = None) -> Self:
        key = inner.kernel_key

        def declare(**numbers):
            return _of_pairs(key.declare(**numbers))

        identity = ("split_real_and_imaginary", key.identity)
        key_of_pairs = dataclasses.replace(key, identity=identity, declare=declare)
        self = super().__new__(
            cls, _of_pairs(inner.declaration), key_of_pairs, changing=inner.changing
        )
        # As a member of a chain it keeps the recipe whose arguments are read by path.
        self.inner, self.recipe = inner, recipe or inner.recipe
        return self

    def arguments(self) -> dict[str, Any]:
        return {"inner": self.inner, "recipe": self.recipe}


class _PairSlot(Slot):
    """A slot that is complex for a complex leaf, one part for each part of the leaf."""

    def init(self, param: Any) -> Any:
        def both(x):
            is_complex = self.fill and jnp.iscomplexobj(x)
            return jax.lax.complex(x.real, x.real) if is_complex else x

        return jax.tree.map(both, super().init(param))


def _of_pairs(declared: Declaration) -> Declaration:
    return dataclasses.replace(
        declared,
        rule=_seeing_pairs(declared.rule),
        slots={
            n: _PairSlot(*x._replace(real=False)) for n, x in declared.slots.items()
        },
        real_only=False,
        readout=declared.readout and _seeing_pairs(declared.readout),
    )


def _seeing_pairs(rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)  # the engine reads the arguments from the signature
    def of_pairs(x, *slots, **numbers):
        if not jnp.iscomplexobj(x):
            return rule(x, *slots, **numbers)
        if "p" in numbers:
            numbers["p"] = _pairs(numbers["p"])
        return jax.tree.map(_joined, rule(_pairs(x), *map(_pairs, slots), **numbers))

    return of_pairs


def _pairs(x: Any) -> Any:
    return jnp.stack([jnp.real(x), jnp.imag(x)], axis=-1) if jnp.iscomplexobj(x) else x


def _joined(x: jax.Array) -> jax.Array:
    real, imaginary = (jax.lax.index_in_dim(x, i, -1, keepdims=False) for i in (0, 1))
    return jax.lax.complex(real, imaginary)


def _like(leaf: Any, x: Any) -> Any:
    return _joined(x).astype(leaf.dtype) if jnp.iscomplexobj(leaf) else x


def _split_trees(inner: GradientTransformation) -> GradientTransformation:
    """Show trees of pairs to a transformation that is more than a rule for elements."""

    def init(params):
        return inner.init(jax.tree.map(_pairs, params))

    def update(updates, state, params=None, **extra):
        if params is not None:
            extra["params"] = jax.tree.map(_pairs, params)
        new, state = inner.update(jax.tree.map(_pairs, updates), state, **extra)
        return jax.tree.map(_like, updates, new), state

    def readout(state, params, name=None):
        new = eval_params(inner, state, jax.tree.map(_pairs, params), name=name)
        return jax.tree.map(_like, params, new)

    return in_place_of(
        inner,
        init,
        update,
        readout if has_readout(inner) else None,
        fixed_name=inner.name,
        recipe=inner.recipe,
    )
