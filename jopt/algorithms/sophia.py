"""Sophia: momentum divided by an estimate of the Hessian's diagonal, and clipped.

    m <- b1 m + (1 - b1) g
    h <- b2 h + (1 - b2) h^           every k steps, h^ an estimate of diag(Hessian)
    u <- clip(m / max(gamma h, eps), -rho, rho)

Liu, Li, Hall, Liang & Ma, "Sophia: a scalable stochastic second-order optimizer for
language model pre-training", 2023.

`hutchinson_estimator_diag_hessian` (Sophia-H) takes a product with the Hessian of the
loss; `gauss_newton_bartlett` (Sophia-G) takes a gradient for labels that the model
draws.

State: 8 bytes per float32 parameter; one more gradient or Hessian product every k
steps. For language models: learning rate 0.8 of AdamW's, gamma 0.01 to 0.05, chosen so
that 10 to 50 % of the updates are not clipped. Later comparisons found it level with a
tuned AdamW.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.key_stream import KeyStream
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, Params
from jopt.core.wide_slots import with_slots
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule
from jopt.values.registry import config_function


# ``estimate(key, obj_fn, params)`` returns a tree like ``params``.
EstimatorName = Literal["hutchinson", "gauss_newton_bartlett"]
Estimator = Callable[[jax.Array, Callable[..., Any], Params], Params]


@config_function
def hutchinson_estimator_diag_hessian(
    key: jax.Array, obj_fn: Callable[[Params], jax.Array], params: Params
) -> Params:
    """Return Hutchinson's estimate of the Hessian's diagonal: ``v * (H v)``.

    The elements of ``v`` are random signs.

    Args:
      key: A key of ``jax.random``.
      obj_fn: ``obj_fn(params) -> loss``, of the current batch.
      params: The point at which the Hessian is taken.

    Returns:
      An unbiased estimate, like ``params``; exact if the Hessian is diagonal.

    Hutchinson, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines", 1989.

    >>> def loss(p):
    ...     return jnp.sum(jnp.array([1.0, 5.0]) * p**2)
    >>> hutchinson_estimator_diag_hessian(jax.random.key(0), loss, jnp.ones(2))
    Array([ 2., 10.], dtype=float32)
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    signs = treedef.unflatten(
        jax.random.rademacher(k, p.shape, p.dtype)
        for k, p in zip(keys, leaves, strict=False)
    )
    _, product = jax.jvp(jax.grad(obj_fn), (params,), (signs,))
    return jax.tree.map(jnp.multiply, signs, product)


@config_function
def gauss_newton_bartlett(
    key: jax.Array, obj_fn: Callable[[Params, jax.Array], jax.Array], params: Params
) -> Params:
    """Return the squared gradient of the loss for labels that the model itself draws.

    Multiplied by the batch size, it estimates the diagonal of the Gauss-Newton matrix;
    the authors include the batch size in ``gamma``.

    Args:
      key: A key of ``jax.random``, for the labels.
      obj_fn: ``obj_fn(params, key) -> loss``, the mean loss of the batch with labels
        drawn from the model's own predictions.
      params: The point at which the gradient is taken.

    Returns:
      An estimate, like ``params``.

    Liu, Li, Hall, Liang & Ma, "Sophia: a scalable stochastic second-order optimizer
    for language model pre-training", 2023.

    >>> def loss(p, key):
    ...     return 3.0 * p
    >>> gauss_newton_bartlett(jax.random.key(0), loss, jnp.ones(()))
    Array(9., dtype=float32)
    """
    grads = jax.grad(obj_fn)(params, key)
    return jax.tree.map(jnp.square, grads)


ESTIMATORS: dict[str, Estimator] = {
    "hutchinson": hutchinson_estimator_diag_hessian,
    "gauss_newton_bartlett": gauss_newton_bartlett,
}


class ScaleBySophiaState(NamedTuple):
    """State of `scale_by_sophia`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # average of the estimates of the Hessian's diagonal, like params
    key: jax.Array  # uint32, data of the next key


@transformation
def scale_by_sophia(
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-15,
    gamma: ScalarOrSchedule = 0.01,
    clip_threshold: ScalarOrSchedule = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: EstimatorName | Estimator = "hutchinson",
    mu_dtype: StorageDtype | None = None,
    *,
    key: int | jax.Array = 0,
) -> GradientTransformation:
    """Divide the momentum by the Hessian's diagonal, and clip.

        u <- clip(m / max(gamma h, eps), -clip_threshold, clip_threshold)

    Args:
      b1: Decay of the momentum, in [0, 1).
      b2: Decay of the mean of the estimates, in [0, 1).
      eps: Smallest divisor, > 0 (optax: 1e-8). Where the estimate is not positive, it
        makes updates so large that they are clipped.
      gamma: Factor of the estimate, > 0: the larger, the fewer updates are clipped.
      clip_threshold: Largest update of an element, > 0.
      update_interval: Number of steps from one estimate to the next, >= 1.
      hessian_diagonal_fn: ``"hutchinson"``, ``"gauss_newton_bartlett"``, or a function
        ``(key, obj_fn, params) -> tree``.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      key: A key of ``jax.random`` for the estimates, or the seed of one.

    Returns:
      A transformation that needs params and ``obj_fn``, the loss as a function that the
      estimator calls: ``update(updates, state, params, obj_fn=loss)``.

    Raises:
      ValueError: A number is out of range, or ``hessian_diagonal_fn`` is an unknown
        name.

    Equal to ``SophiaH`` of pytorch_optimizer, given its estimates. optax corrects the
    bias of ``m``; the authors do not.

    >>> import jopt
    >>> tx, params = jopt.scale_by_sophia(gamma=1.0), jnp.array([0.1, 9.0])
    >>> g = {"obj_fn": lambda p: jnp.sum(jnp.array([100.0, 1e-3]) * p**2)}
    >>> tx.update(jnp.array([20.0, 0.018]), tx.init(params), params, **g)[0].round(2)
    Array([0.35, 1.  ], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps, gamma=gamma, clip_threshold=clip_threshold)
    arguments.at_least(1, update_interval=update_interval)
    if isinstance(hessian_diagonal_fn, str):
        arguments.one_of(tuple(ESTIMATORS), hessian_diagonal_fn=hessian_diagonal_fn)
        estimate = ESTIMATORS[hessian_diagonal_fn]
    else:
        estimate = hessian_diagonal_fn
    keys = KeyStream(key)
    mu_slot, nu_slot = zeros(mu_dtype), zeros()

    def init(params):
        Leaves(params, "params", real_only="scale_by_sophia")
        return ScaleBySophiaState(
            jnp.zeros((), jnp.int32),
            mu_slot.initial(params),
            nu_slot.initial(params),
            keys.initial(),
        )

    def update(updates, state, params, obj_fn):
        leaves = Leaves(updates, real_only="scale_by_sophia")
        leaves.aligned(params, "params")

        def renew():
            data, (subkey,) = keys.split(state.key, 1)
            diagonal = estimate(subkey, obj_fn, params)
            average = functools.partial(averaged, b2=b2)
            return jax.tree.map(average, state.nu, diagonal), data

        # A conditional, so that other steps do not pay for an estimate.
        due = state.count % update_interval == 0
        nu, data = jax.lax.cond(due, renew, lambda: (state.nu, state.key))
        mus = leaves.aligned(state.mu, "the state's mu")
        nus = leaves.aligned(nu, "the state's nu")
        pairs = [
            (None, mu) if g is None else rule(g, mu, h, b1, eps, gamma, clip_threshold)
            for g, mu, h in zip(leaves.values, mus, nus, strict=True)
        ]
        new, mus = ([pair[i] for pair in pairs] for i in range(2))
        count = tree.safe_increment(state.count)
        state = ScaleBySophiaState(count, leaves.tree(mus), nu, data)
        return leaves.tree(new), state

    tx = GradientTransformation(init, update)
    return with_slots(tx, ScaleBySophiaState, mu=mu_slot)


@jax.jit
def averaged(nu: jax.Array, h: jax.Array, b2: Any) -> jax.Array:
    """Return the new average of the estimates ``h``."""
    b2 = jnp.asarray(b2, nu.dtype)
    return b2 * nu + (1 - b2) * h.astype(nu.dtype)


@jax.jit
def rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *numbers: Any, filled: Any = None
) -> tuple[jax.Array, jax.Array]:
    """Return the update of a leaf and its new ``mu``.

    Args:
      g: The gradient.
      mu, nu: See `ScaleBySophiaState`.
      *numbers: ``b1``, ``eps``, ``gamma`` and ``clip_threshold``.
      filled: ``1 - b1**t``, which corrects the bias of ``mu``; None corrects nothing.
    """
    b1, eps, gamma, rho = (jnp.asarray(x, nu.dtype) for x in numbers)
    m = b1 * mu.astype(nu.dtype) + (1 - b1) * g.astype(nu.dtype)
    direction = m if filled is None else m / jnp.asarray(filled, nu.dtype)
    curvature = jnp.maximum(gamma * nu, eps)
    u = jnp.clip(direction / jnp.where(m == 0, 1, curvature), -rho, rho)  # 0 / 0 is 0
    return u.astype(g.dtype), m.astype(mu.dtype)


@transformation
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-15,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: ScalarOrSchedule = 0.01,
    clip_threshold: ScalarOrSchedule = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: EstimatorName | Estimator = "hutchinson",
    mu_dtype: StorageDtype | None = None,
    *,
    key: int | jax.Array = 0,
) -> GradientTransformation:
    """Sophia: clipped second-order steps, with decoupled weight decay.

        p <- p - learning_rate (clip(m / max(gamma h, eps)) + weight_decay p)

    ``h`` estimates the diagonal of the Hessian every few steps. Choose ``gamma`` from
    0.01 to 0.05, so that 10 to 50 % of the updates are not clipped. Later comparisons
    found Sophia level with a tuned AdamW.

    Args:
      learning_rate: Step size, >= 0; about 0.8 of AdamW's.
      b1, b2, eps: See `scale_by_sophia`.
      weight_decay: Decoupled decay, >= 0, multiplied by the learning rate; 0.1 to 0.2
        in the paper.
      weight_decay_mask: The leaves to decay; see `jopt.Mask`.
      gamma, clip_threshold, update_interval: See `scale_by_sophia`.
      hessian_diagonal_fn, mu_dtype, key: See `scale_by_sophia`.

    Returns:
      A transformation that needs params and ``obj_fn``; see `scale_by_sophia`.

    Raises:
      ValueError: A number is out of range, or ``hessian_diagonal_fn`` is an unknown
        name.

    Liu, Li, Hall, Liang & Ma, "Sophia: a scalable stochastic second-order optimizer
    for language model pre-training", 2023.

    >>> import jopt
    >>> jopt.sophia(1e-3, gamma=0.02)
    sophia(learning_rate=0.001, gamma=0.02)
    """
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            key=key,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def sophia_g(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    rho: ScalarOrSchedule = 0.04,
    weight_decay: ScalarOrSchedule = 0.1,
    weight_decay_mask: Mask = None,
    update_interval: int = 10,
    mu_dtype: StorageDtype | None = None,
    *,
    batch_size: ScalarOrSchedule = 5120.0,
    key: int | jax.Array = 0,
) -> GradientTransformation:
    """Sophia-G in the authors' numbers: ``gamma = rho batch_size``.

        p <- p - learning_rate (clip(m / max(rho batch_size h, eps)) + weight_decay p)

    Args:
      learning_rate: Step size, >= 0; about 0.8 of AdamW's.
      b1, b2: See `scale_by_sophia`.
      rho: Factor of the estimate, > 0; 0.02 to 0.05, such that 10 to 50 % of the
        updates are not clipped.
      weight_decay, weight_decay_mask: See `sophia`.
      update_interval, mu_dtype: See `scale_by_sophia`.
      batch_size: The number of labels over which the loss is a mean, > 0: the tokens of
        a step, for language models.
      key: See `scale_by_sophia`.

    Returns:
      A transformation that needs params and ``obj_fn(params, key)``, the mean loss with
      labels drawn from the model; see `gauss_newton_bartlett`.

    Raises:
      ValueError: A number is out of range.

    Equal to the authors' ``SophiaG``, given its estimates.

    >>> import jopt
    >>> tx, params = jopt.sophia_g(1e-3, batch_size=8.0), jnp.array([1.0])
    >>> g = {"obj_fn": lambda p, key: jnp.sum(3.0 * p)}
    >>> tx.update(jnp.array([0.5]), tx.init(params), params, **g)[0]
    Array([-0.00070764], dtype=float32)
    """
    arguments.positive(rho=rho, batch_size=batch_size)
    return sophia(
        learning_rate,
        b1,
        b2,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        gamma=_product(rho, batch_size),
        update_interval=update_interval,
        hessian_diagonal_fn="gauss_newton_bartlett",
        mu_dtype=mu_dtype,
        key=key,
    )


def _product(rho: Any, batch_size: Any) -> Any:
    numbers = [x for x in (rho, batch_size) if isinstance(x, float)]
    if not numbers:
        raise TypeError(
            "only one of rho and batch_size may change, got "
            f"rho={text_of(rho)} and batch_size={text_of(batch_size)}"
        )
    return rho * batch_size
