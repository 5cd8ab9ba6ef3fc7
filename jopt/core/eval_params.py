"""``eval_params``: the parameters to evaluate with, through any nesting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jopt.core import tree_checks
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.values.recipe import Recorded


CALL = "eval_params(tx, state, params)"


def eval_params(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    *,
    default: Params | None = None,
) -> Params:
    """Return the parameters to evaluate, test or deploy with.

    Some optimizers train at one point and answer with another: an average of the
    parameters, or Schedule-Free's iterate. This returns the other.

    Args:
      tx: The transformation.
      state: Its state.
      params: The parameters that are trained.
      default: What to return if ``tx`` is not such an optimizer: ``params``, in code
        that serves any optimizer. None makes that an error.

    Returns:
      Parameters of the same structure, shapes and dtypes.

    Raises:
      TypeError: ``state`` is not a state of ``tx``.
      ValueError: No transformation in ``tx`` has other parameters to evaluate with,
        and ``default`` is None; or more than one has.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_mean()), jnp.ones(2)
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> jopt.eval_params(tx, state, params)
    Array([0., 0.], dtype=float32)
    >>> tx = jopt.sgd(1.0)
    >>> jopt.eval_params(tx, tx.init(params), params, default=params)
    Array([1., 1.], dtype=float32)
    """
    if not isinstance(tx, GradientTransformation) or isinstance(state, Recorded):
        raise TypeError(
            f"the order is {CALL}, where tx is a transformation of jopt; got {tx!r}"
        )
    tx.check_state(state, CALL)
    readouts = list(_readouts(tx, state, tx.name))
    if len(readouts) > 1:
        raise ValueError(
            "more than one transformation has its own parameters to evaluate with: "
            f"{[path for path, _, _ in readouts]}. Call eval_params with one of them "
            "and its state"
        )
    for _, inner, inner_state in readouts:
        assert inner.readout is not None
        try:
            return inner.readout(inner_state, params)
        except TypeError:
            tree_checks.of_jax(params=params)
            raise
    if default is None:
        raise ValueError(
            f"{tx!r} keeps no parameters besides those that are trained. Evaluate with "
            "params, average them with jopt.params_ema(0.999) as the last member of a "
            "chain, or give default=params"
        )
    return default


def _readouts(
    tx: GradientTransformation, state: OptState, path: str
) -> Iterator[tuple[str, GradientTransformation, OptState]]:
    """Each transformation inside that has a readout, with its state."""
    if not has_readout(tx):
        return
    tx.check_state(state, CALL)
    if tx.readout is not None:
        yield path, tx, state
        return
    for name, inner, inner_state in tx.inside(state):
        yield from _readouts(inner, inner_state, f"{path}/{name}")


def has_readout(tx: Any) -> bool:
    """Whether ``eval_params`` would return parameters that are not the trained ones."""
    return tx.readout is not None or any(map(has_readout, tx.children.values()))
