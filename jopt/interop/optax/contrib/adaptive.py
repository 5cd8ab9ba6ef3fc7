"""Adaptive optimizers of ``optax.contrib``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jopt
from jopt.algorithms.adopt import fourth_root
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
    ScaleByAdamState,
    ScaleByBeliefState,
    add_decayed_weights,
    scale_by_learning_rate,
)


@lenient
def scale_by_acprop(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
) -> Pair:
    """Divide by the belief of the step before, see `jopt.scale_by_acprop`."""
    tx = jopt.scale_by_acprop(b1, b2, eps, eps_root, previous_mean=True)
    return with_fields(tx, ScaleByBeliefState)


def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
    weight_decay: Numeric = 0.0,
    mask: MaskOrFn = None,
) -> Pair:
    """ACProp by optax's equations, see `jopt.scale_by_acprop`."""
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class ScaleByAdemamixState(NamedTuple):
    """State of `scale_by_ademamix`."""

    count: Any
    count_m2: Any
    m1: Any
    m2: Any
    nu: Any


@lenient
def scale_by_ademamix(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: Any = None,
) -> Pair:
    """Rescale by two averages, see `jopt.scale_by_ademamix`."""
    tx = jopt.scale_by_ademamix(
        b1, b2, b3, alpha, eps, eps_root, mu_dtype, m2_dtype=mu_dtype, nu_dtype=mu_dtype
    )
    return with_fields(
        tx, ScaleByAdemamixState, theirs={"count_m2": lambda state, _: state.count}
    )


def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: Any = None,
    weight_decay: Numeric = 0.0,
    mask: MaskOrFn = None,
) -> Pair:
    """AdEMAMix, see `jopt.ademamix`."""
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """State of `scale_by_simplified_ademamix`."""

    t: Any
    m: Any
    n: Any


@lenient
def scale_by_simplified_ademamix(
    b1: Numeric = 0.99,
    b2: Numeric = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
) -> Pair:
    """Rescale by one average, see `jopt.scale_by_simplified_ademamix`."""
    return with_fields(
        jopt.scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        ScaleBySimplifiedAdEMAMixState,
        ours={"count": lambda state, _: state.t},
        theirs={"t": lambda state, _: state.count},
    )


def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.99,
    b2: Numeric = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    weight_decay: Numeric = 0.0,
    mask: MaskOrFn = None,
) -> Pair:
    """Simplified AdEMAMix, see `jopt.simplified_ademamix`."""
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@lenient
def scale_by_adopt(
    b1: Numeric = 0.9,
    b2: Numeric = 0.9999,
    eps: Numeric = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root,
) -> Pair:
    """Normalize before the momentum, see `jopt.scale_by_adopt`."""
    tx = jopt.scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
    )
    return with_fields(tx, ScaleByAdamState)


def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.9999,
    eps: Numeric = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root,
) -> Pair:
    """ADOPT, see `jopt.adopt`."""
    scaled = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))


class MadgradState(NamedTuple):
    """State of `scale_by_madgrad`."""

    count: Any
    grad_sum_sq: Any
    s: Any
    x0: Any


@lenient
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: float = 0.9, eps: float = 1e-6
) -> Pair:
    """Average dual iterates, see `jopt.scale_by_madgrad`."""
    return with_fields(
        jopt.scale_by_madgrad(learning_rate, momentum, eps), MadgradState
    )


def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: Numeric = 0.0,
    eps: float = 1e-6,
) -> Pair:
    """MADGRAD, see `jopt.madgrad`."""
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_madgrad(learning_rate, momentum, eps),
    )


class MomoState(NamedTuple):
    """State of `momo`."""

    exp_avg: Any
    barf: Any
    gamma: Any
    lb: Any
    count: Any


@lenient
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Numeric = 0.9,
    lower_bound: float = 0.0,
    weight_decay: Numeric = 0.0,
    adapt_lower_bound: bool = False,
) -> Pair:
    """MoMo, see `jopt.momo`."""
    tx = jopt.momo(learning_rate, beta, lower_bound, weight_decay, adapt_lower_bound)
    return with_fields(tx.children["momo"], MomoState)


class MomoAdamState(NamedTuple):
    """State of `momo_adam`."""

    exp_avg: Any
    exp_avg_sq: Any
    barf: Any
    gamma: Any
    lb: Any
    count: Any


@lenient
def momo_adam(
    learning_rate: ScalarOrSchedule = 0.01,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: Numeric = 0.0,
    adapt_lower_bound: bool = False,
) -> Pair:
    """MoMo-Adam, see `jopt.momo_adam`."""
    tx = jopt.momo_adam(
        learning_rate, b1, b2, eps, lower_bound, weight_decay, adapt_lower_bound
    )
    return with_fields(tx.children["momo_adam"], MomoAdamState)
