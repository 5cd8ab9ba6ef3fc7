"""Wrap jopt transformations in optax's class and optax transformations in jopt's."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jopt.core.transformation import GradientTransformation
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe


@jax.tree_util.register_static
class OptaxTransformation(optax.GradientTransformationExtraArgs):
    """The result of `as_optax`; two are equal if their transformations are."""

    tx: GradientTransformation

    def __repr__(self) -> str:
        return f"as_optax({self.tx!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptaxTransformation) and self.tx == other.tx

    def __ne__(self, other: object) -> bool:  # tuple has its own, which ignores tx
        return not self == other

    def __hash__(self) -> int:
        return hash((OptaxTransformation, self.tx))

    def __reduce__(self) -> Any:
        return as_optax, (self.tx,)


def as_optax(tx: GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return the transformation as an object of optax's class.

    Args:
      tx: A transformation.

    Returns:
      The same pair of functions. Equal ``tx`` give equal results with equal hashes.

    Raises:
      TypeError: ``tx`` is not a jopt transformation.

    >>> import jopt
    >>> tx = as_optax(jopt.adam(1e-3))
    >>> tx, tx == as_optax(jopt.adam(1e-3))
    (as_optax(adam(learning_rate=0.001)), True)
    """
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"as_optax takes a jopt transformation, got {abbreviated(tx)}")
    wrapped = OptaxTransformation(tx.init, tx.update)  # type: ignore[arg-type]
    # `set_hyperparams` also takes the wrapped object, so it needs tx's attributes.
    wrapped.__dict__.update(vars(tx), tx=tx)
    return wrapped


def from_optax(
    tx: optax.GradientTransformation, name: str | None = None
) -> GradientTransformation:
    """Return an optax transformation as a jopt transformation, as `jopt.chain` does.

    Args:
      tx: A pair ``(init, update)``.
      name: The name of its state in a chain; None means the name of the optax function
        that made it.

    Returns:
      A transformation that takes the same arguments as ``tx.update``.

    >>> import jopt, jax.numpy as jnp
    >>> noise = from_optax(optax.add_noise(0.1, 0.5, key=0), name="noise")
    >>> list(jopt.chain(noise, jopt.sgd(0.1)).init(jnp.ones(2)))
    ['noise', 'scale_by_learning_rate']
    """
    if isinstance(tx, OptaxTransformation):
        return tx.tx
    recipe = Recipe(from_optax, {"tx": tx, "name": name})
    name = name or GradientTransformation(tx.init, tx.update).name
    return GradientTransformation(tx.init, tx.update, fixed_name=name, recipe=recipe)
