"""Sophia of ``optax.contrib``, whose estimator is a transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms import sophia as engine
from jopt.interop.optax.base import (
    NO_PARAMS_MSG,
    MaskOrFn,
    Numeric,
    Pair,
    ScalarOrSchedule,
    as_pair,
    chain,
    own,
)
from jopt.interop.optax.scaling import add_decayed_weights, scale_by_learning_rate


class HutchinsonState(NamedTuple):
    """State of `hutchinson_estimator_diag_hessian`."""

    key: Any


def hutchinson_estimator_diag_hessian(random_seed: Any = None) -> Pair:
    """Estimate the Hessian's diagonal, see `jopt.hutchinson_estimator_diag_hessian`.

    Args:
      random_seed: A key of ``jax.random``; None means that of the seed 0.

    Returns:
      A transformation that returns the estimate in place of the updates. It needs
      params and the loss: ``update(updates, state, params, obj_fn=loss)``.

    Raises:
      ValueError: ``params`` or ``obj_fn`` is missing; from ``update``.
    """

    def init(params):
        return HutchinsonState(
            jax.random.PRNGKey(0) if random_seed is None else random_seed
        )

    def update(updates, state, params=None, obj_fn=None, **extra_args):
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        if obj_fn is None:
            raise ValueError(
                "Hutchinson's estimator needs the loss: call update(updates, state, "
                "params, obj_fn=loss), where loss(params) is a number"
            )
        key, subkey = jax.random.split(state.key)
        estimate = engine.hutchinson_estimator_diag_hessian(subkey, obj_fn, params)
        return estimate, HutchinsonState(key)

    return own(init, update)


_HUTCHINSON = hutchinson_estimator_diag_hessian()


class SophiaState(NamedTuple):
    """State of `sophia`."""

    count: Any
    mu: Any
    nu: Any
    hessian_fn_state: Any


def _scale_by_sophia(
    b1: Any,
    b2: Any,
    eps: Any,
    gamma: Any,
    clip_threshold: Any,
    update_interval: Any,
    hessian_diagonal_fn: Any,
    mu_dtype: Any,
    report_every: Any,
) -> Pair:
    """Divide by the estimate of the steps before; see `sophia`.

    Args:
      b1, b2, eps, gamma, clip_threshold: See `sophia`.
      update_interval, hessian_diagonal_fn, mu_dtype: See `sophia`.
      report_every: Steps from one report to the next; 0 means that there are none.
    """
    estimator = as_pair(hessian_diagonal_fn, "sophia: hessian_diagonal_fn")
    threshold = jnp.inf if clip_threshold is None else clip_threshold

    def init(params):
        return SophiaState(
            count=jnp.zeros((), jnp.int32),
            mu=tree.zeros_like(params, mu_dtype),
            nu=tree.zeros_like(params),
            hessian_fn_state=estimator.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        count = tree.safe_increment(state.count)
        filled = tree.one_minus_power(b1, tree.scalar(count))
        grads, treedef = jax.tree.flatten(updates)
        slots = (treedef.flatten_up_to(x) for x in (state.mu, state.nu))
        pairs = [
            engine.rule(g, mu, nu, b1, eps, gamma, threshold, filled=filled)
            for g, mu, nu in zip(grads, *slots, strict=True)
        ]
        new, mu = (treedef.unflatten([pair[i] for pair in pairs]) for i in range(2))
        _report(new, threshold, count, report_every)

        # The new estimate counts from the next step on.
        def renewed():
            diagonal, after = estimator.update(
                updates, state.hessian_fn_state, params, **extra_args
            )
            return after, jax.tree.map(
                lambda nu, h: engine.averaged(nu, h, b2), state.nu, diagonal
            )

        hessian_fn_state, nu = jax.lax.cond(
            state.count % update_interval == 0,
            renewed,
            lambda: (state.hessian_fn_state, state.nu),
        )
        return new, SophiaState(count, mu, nu, hessian_fn_state)

    return own(init, update)


def _report(updates: Any, threshold: Any, count: jax.Array, every: Any) -> None:
    """Print which part of the updates was not clipped, in some steps."""
    if isinstance(every, int) and every == 0:
        return
    free = tree.sum(jax.tree.map(lambda u: jnp.sum(jnp.abs(u) < threshold), updates))
    jax.lax.cond(
        count % every == 0,
        lambda: jax.debug.print(
            "Sophia: {} of the updates were not clipped", free / tree.size(updates)
        ),
        lambda: None,
    )


def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.965,
    b2: Numeric = 0.99,
    eps: Numeric = 1e-8,
    weight_decay: Numeric = 1e-4,
    weight_decay_mask: MaskOrFn = None,
    gamma: Numeric = 0.01,
    clip_threshold: Numeric | None = 1.0,
    update_interval: Numeric = 10,
    hessian_diagonal_fn: Any = _HUTCHINSON,
    mu_dtype: Any = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: Numeric = 0,
) -> Pair:
    """Sophia by optax's equations; the rest is as in `jopt.sophia`.

    The bias of the momentum is corrected, and a new estimate of the Hessian counts from
    the next step on, so that the first step takes none.

    Args:
      learning_rate: Step size.
      b1, b2, eps: See `jopt.sophia`.
      weight_decay, weight_decay_mask: See `jopt.sophia`.
      gamma: See `jopt.sophia`.
      clip_threshold: Largest update of an element; None means no limit.
      update_interval: Number of steps from one estimate to the next.
      hessian_diagonal_fn: A transformation that returns an estimate in place of the
        updates; it gets the further arguments of ``update``.
      mu_dtype: Dtype of the momentum; None means that of the parameters.
      verbose: Whether to print which part of the updates was not clipped.
      print_win_rate_every_n_steps: Number of steps from one such line to the next; 0
        prints none.

    Returns:
      A transformation that needs params, and ``obj_fn`` for the default estimator.
    """
    return chain(
        _scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            print_win_rate_every_n_steps if verbose else 0,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
