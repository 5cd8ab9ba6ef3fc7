"""Optimizers of ``optax.contrib`` that find their own learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

import jopt
from jopt import tree
from jopt.algorithms.dog import InitStep
from jopt.interop.optax.base import (
    MaskOrFn,
    Numeric,
    Pair,
    ScalarOrSchedule,
    chain,
    lenient,
    with_fields,
)
from jopt.interop.optax.scaling import (
    add_decayed_weights,
    identity,
    scale_by_learning_rate,
)


class COCOBState(NamedTuple):
    """State of `scale_by_cocob`."""

    init_particles: Any
    cumulative_gradients: Any
    scale: Any
    subgradients: Any
    reward: Any


@lenient
def scale_by_cocob(alpha: float = 100.0, eps: float = 1e-8) -> Pair:
    """Bet on coins, see `jopt.scale_by_cocob`."""
    return with_fields(jopt.scale_by_cocob(alpha, eps), COCOBState)


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: Numeric = 0.0,
    mask: MaskOrFn = None,
) -> Pair:
    """COCOB, see `jopt.cocob`."""
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )


class DAdaptAdamWState(NamedTuple):
    """State of `dadapt_adamw`."""

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    estim_lr: Any
    numerator_weighted: Any
    count: Any


@lenient
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: Numeric = 0.0,
) -> Pair:
    """D-Adaptation with Adam's bias correction, see `jopt.dadapt_adamw`."""
    tx = jopt.dadapt_adamw(
        learning_rate, betas, eps, estim_lr0, weight_decay, use_bias_correction=True
    )
    return with_fields(tx.children["dadapt_adamw"], DAdaptAdamWState)


class ProdigyState(NamedTuple):
    """State of `prodigy`."""

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    params0: Any
    estim_lr: Any
    numerator_weighted: Any
    count: Any


@lenient
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: Numeric = 0.0,
    safeguard_warmup: bool = False,
) -> Pair:
    """Prodigy with Adam's bias correction, see `jopt.prodigy`."""
    tx = jopt.prodigy(
        learning_rate,
        betas,
        beta3,
        eps,
        estim_lr0,
        estim_lr_coef,
        weight_decay,
        safeguard_warmup,
        use_bias_correction=True,
    )
    # Without a bound on its growth, d is its own largest value.
    return with_fields(
        tx.children["prodigy"],
        ProdigyState,
        ours={"estim_lr_max": lambda state, _: state.estim_lr},
    )


class DoGState(NamedTuple):
    """State of `dog`."""

    is_init_step: Any
    init_params: Any
    max_dist: Any
    sum_sq_norm_grads: Any


@lenient
def scale_by_dog(init_step: InitStep, eps: float = 1e-8) -> Pair:
    """Scale by distance over gradients, see `jopt.scale_by_dog`."""
    kind, value = init_step

    def start(state):
        first = {
            "distance": lambda: value,
            "heuristic": lambda: value * (1 + tree.norm(state.init_params)),
            "learning_rate": lambda: 0.0,
        }[kind]()
        return state._replace(max_dist=jnp.asarray(first, state.max_dist.dtype))

    return with_fields(
        jopt.scale_by_dog(init_step, eps),
        DoGState,
        ours={"count": lambda state, _: jnp.where(state.is_init_step, 0, 1)},
        theirs={"is_init_step": lambda state, _: state.count == 0},
        start=start,
    )


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: InitStep = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: Numeric | None = None,
    mask: MaskOrFn = None,
) -> Pair:
    """DoG, see `jopt.dog`."""
    return chain(
        _decay(weight_decay, mask),
        scale_by_dog(init_step, eps),
        scale_by_learning_rate(learning_rate),
    )


def _decay(weight_decay: Numeric | None, mask: MaskOrFn) -> Pair:
    return (
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)
    )


class DoWGState(NamedTuple):
    """State of `dowg`."""

    init_params: Any
    weighted_sq_norm_grads: Any
    estim_sq_dist: Any


@lenient
def scale_by_dowg(init_estim_sq_dist: float | None = None, eps: float = 1e-4) -> Pair:
    """Scale by distance over weighted gradients, see `jopt.scale_by_dowg`."""
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist

    def start(state):
        dtype = state.estim_sq_dist.dtype
        return state._replace(estim_sq_dist=jnp.asarray(first, dtype))

    return with_fields(
        jopt.scale_by_dowg(init_estim_sq_dist, eps), DoWGState, start=start
    )


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: Numeric | None = None,
    mask: MaskOrFn = None,
) -> Pair:
    """DoWG, see `jopt.dowg`."""
    return chain(
        _decay(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
