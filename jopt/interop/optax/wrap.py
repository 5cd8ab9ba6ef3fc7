"""Transformations as objects of optax's class, and optax's as ours."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jopt.core.transformation import GradientTransformation
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe


@jax.tree_util.register_static
class OptaxTransformation(optax.GradientTransformationExtraArgs):
    """What `as_optax` returns; equal to another if the transformations are."""

    tx: GradientTransformation

    def __repr__(self) -> str:
        return f"as_optax({self.tx!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptaxTransformation) and self.tx == other.tx

    def __ne__(self, other: object) -> bool:  # tuple has its own
        return not self == other

    def __hash__(self) -> int:
        return hash((OptaxTransformation, self.tx))

    def __reduce__(self) -> Any:
        return as_optax, (self.tx,)


def as_optax(tx: GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The transformation as an object of optax's class.

    Args:
      tx: A transformation.

    Returns:
      The same pair of functions. It is equal, and hashes alike, for an equal ``tx``.

    Raises:
      TypeError: ``tx`` is not a jopt transformation.

    >>> import jopt
    >>> tx = as_optax(jopt.adam(1e-3))
    >>> tx, tx == as_optax(jopt.adam(1e-3))
    (as_optax(adam(learning_rate=0.001)), True)
    """
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"as_optax takes a jopt transformation, got {abbreviated(tx)}")
    made = OptaxTransformation(tx.init, tx.update)  # type: ignore[arg-type]
    # With what the transformation knows of itself, `set_hyperparams` takes it too.
    made.__dict__.update(vars(tx), tx=tx)
    return made


def from_optax(
    tx: optax.GradientTransformation, name: str | None = None
) -> GradientTransformation:
    """An optax transformation as one of jopt's; `jopt.chain` does it by itself.

    Args:
      tx: A pair ``(init, update)``.
      name: The name of its state in a chain; None is the name of the function that
        optax made it with.

    Returns:
      A transformation that takes the arguments that ``tx.update`` does.

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
