"""``eval_params``: the parameters to evaluate with, through any nesting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.values.recipe import Recorded


def eval_params(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    *,
    default: Params | None = None,
) -> Params:
    """The parameters to evaluate, test or deploy with.

    Where an optimizer trains at one point and answers with another (an average of the
    parameters, Schedule-Free), this is the other.

    Args:
      tx: The transformation.
      state: Its state.
      params: The parameters that are trained.
      default: What to return for all other optimizers; ``params``, in code that is for
        any. None makes it an error, for an average was expected.

    Returns:
      Parameters of the same structure, shapes and dtypes.

    Raises:
      ValueError: No transformation in ``tx`` answers with parameters of its own, or
        more than one does.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_mean()), jnp.ones(2)
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> jopt.eval_params(tx, state, params)
    Array([0., 0.], dtype=float32)
    >>> jopt.eval_params(jopt.sgd(1.0), state, params, default=params)
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
    if default is None:
        raise ValueError(
            f"nothing in {tx!r} keeps other parameters than those that are trained. "
            "Evaluate with params, average them with jopt.params_ema(0.999) as the "
            "last member of a chain, or give default=params"
        )
    return default


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
