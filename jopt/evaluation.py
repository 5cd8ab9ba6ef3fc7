"""``eval_params``: the parameters to evaluate with, through any nesting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jopt.base import GradientTransformation, OptState, Params
from jopt.recipe import Recorded


def eval_params(tx: GradientTransformation, state: OptState, params: Params) -> Params:
    """The parameters to evaluate, test or deploy with.

    Where an optimizer trains at one point and answers with another (an average of the
    parameters, Schedule-Free), this is the other; for all others it is ``params``.

    Args:
      tx: The transformation.
      state: Its state.
      params: The parameters that are trained.

    Returns:
      Parameters of the same structure, shapes and dtypes.

    Raises:
      ValueError: More than one transformation in ``tx`` answers with its own.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.sgd(0.1), jnp.ones(2)
    >>> jopt.eval_params(tx, tx.init(params), params)
    Array([1., 1.], dtype=float32)
    """
    if not isinstance(tx, GradientTransformation) or isinstance(state, Recorded):
        raise TypeError(
            "the order is eval_params(tx, state, params), where tx is a transformation "
            f"of jopt; got {tx!r}"
        )
    found = list(_readouts(tx, state, tx.name))
    if len(found) > 1:
        raise ValueError(
            "there is more than one transformation whose parameters to evaluate with "
            f"are its own: {[path for path, _, _ in found]}. Call eval_params with one "
            "of them and its state"
        )
    for _, inner, own in found:
        assert inner.readout is not None
        return inner.readout(own, params)
    return params


def _readouts(
    tx: GradientTransformation, state: OptState, path: str
) -> Iterator[tuple[str, GradientTransformation, OptState]]:
    """Each transformation inside that has a readout, with its state."""
    if tx.readout is not None:
        yield path, tx, state
        return
    for name, inner in tx.children.items():
        own = state.get(name) if isinstance(state, Mapping) else getattr(state, name)
        if own is not None:
            yield from _readouts(inner, own, f"{path}/{name}")


def has_readout(tx: Any) -> bool:
    """Whether ``eval_params`` would give other parameters than those it is given."""
    return tx.readout is not None or any(map(has_readout, tx.children.values()))
