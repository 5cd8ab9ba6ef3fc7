"""``eval_params``: the parameters to evaluate with, through any nesting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from jopt.core import tree_checks
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.tree.variables import sees_arrays
from jopt.values.arguments import text_of
from jopt.values.recipe import Recorded


CALL = "eval_params(tx, state, params)"


@sees_arrays("params")
def eval_params(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    *,
    name: str | None = None,
    default: Params | None = None,
) -> Params:
    """Return the parameters to evaluate, test or deploy with.

    Some optimizers train at one point and answer with another: an average of the
    parameters, or Schedule-Free's iterate. This returns the other.

    Args:
      tx: The transformation.
      state: Its state.
      params: The parameters that are trained.
      name: Which one, if there are several averages: its name in the chain, such as
        ``"params_ema_2"``, or ``"slow"`` in ``chain(…, slow=params_ema(0.9999))``.
      default: What to return if ``tx`` is not such an optimizer: ``params``, in code
        that serves any optimizer. None makes that an error.

    Returns:
      Parameters of the same structure, shapes and dtypes.

    Raises:
      TypeError: ``state`` is not a state of ``tx``.
      ValueError: No transformation in ``tx`` has other parameters to evaluate with,
        and ``default`` is None; or more than one has, and ``name`` is None; or none
        has this name.

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
            f"the order is {CALL}, where tx is a transformation of jopt; got "
            f"{text_of(tx)}"
        )
    tx.check_state(state, CALL)
    if not has_readout(tx):
        if default is None:
            raise ValueError(
                f"{text_of(tx)} keeps no parameters besides those that are trained. "
                "Evaluate with params, average them with jopt.params_ema(0.999) as the "
                "last member of a chain, or give default=params"
            )
        return default
    readouts = [
        (names, *rest)
        for names, *rest in _readouts(tx, state, tx.name)
        if name is None or name in names
    ]
    if len(readouts) != 1:
        problem = "choose one with name=…"
        if name is not None:
            problem = f"{'several are' if readouts else 'none is'} called {name!r}"
        raise ValueError(
            "the transformations that have their own parameters to evaluate with are "
            f"{sorted(_names(tx, tx.name))}: {problem}"
        )
    ((_, inner, inner_state),) = readouts
    assert inner.readout is not None
    which = () if name is None or not _averages_inside(inner) else (name,)
    # As in an update, leaves of a whole model that are not arrays stay.
    arrays = jax.tree.map(
        lambda p: p if hasattr(p, "dtype") or isinstance(p, float) else None, params
    )
    try:
        averages = inner.readout(inner_state, arrays, *which)
    except TypeError:
        tree_checks.of_jax(params=params)
        raise
    return tree_checks.with_statics(averages, params)


def _readouts(
    tx: GradientTransformation, state: OptState, key: str
) -> Iterator[tuple[set[str], GradientTransformation, OptState]]:
    """Each transformation that has a readout, with the names in it, and its state."""
    if not has_readout(tx):
        return
    tx.check_state(state, CALL)
    if tx.readout is not None:
        yield _names(tx, key), tx, state
        return
    for name, inner, inner_state in tx.inside(state):
        yield from _readouts(inner, inner_state, _key(tx, name, inner))


def _names(tx: GradientTransformation, key: str) -> set[str]:
    """The names by which ``eval_params`` finds what is in a transformation."""
    inside = _averages_inside(tx)
    if not inside:
        return {key} if has_readout(tx) else set()
    return set().union(*(_names(x, _key(tx, n, x)) for n, x in inside.items()))


def _key(tx: GradientTransformation, name: str, inner: GradientTransformation) -> str:
    # The members of a chain have names; the fields of wrappers and labels say nothing.
    is_chain = tx.state_class is None and tx.reach is None
    return name if is_chain else inner.name


def _averages_inside(tx: GradientTransformation) -> dict[str, GradientTransformation]:
    return {name: x for name, x in tx.children.items() if has_readout(x)}


def has_readout(tx: Any, name: str | None = None) -> bool:
    """Whether ``eval_params`` would return parameters that are not the trained ones."""
    if name is not None:
        return name in _names(tx, tx.name)
    return tx.readout is not None or any(map(has_readout, tx.children.values()))
