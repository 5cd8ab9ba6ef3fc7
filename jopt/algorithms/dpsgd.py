"""DP-SGD: gradient descent with differential privacy.

    g <- (sum_i g_i min(1, C / |g_i|) + N(0, sigma^2 C^2)) / n

g_i is the gradient of example i, |g_i| its norm over all leaves, C the clipping norm,
sigma the noise multiplier, and n the number of examples.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar & Zhang, "Deep learning with
differential privacy", 2016.

State: the noise key; with momentum, 4 bytes per float32 parameter. Updates go in as
per-example gradients, ``jax.vmap(jax.grad(loss), (None, 0))``, with the examples along
the first axis of each leaf. If they do not fit in memory, `clipped_grad_sum` adds them
up in micro-batches. A privacy accountant computes the guarantee of a run from sigma,
the batch size and the number of steps; the guarantee only holds for batches drawn at
random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.sgd import sgd
from jopt.core import tree_checks
from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.key_stream import KeyStream
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation, Updates
from jopt.gradients.micro_batch import micro_batch
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


def per_example_global_norm_clip(
    grads: Updates, l2_norm_clip: float | jax.Array
) -> tuple[Updates, jax.Array]:
    """Clip the gradient of each example to a norm, and sum over the examples.

    Args:
      grads: Gradients with the examples along the first axis of each leaf.
      l2_norm_clip: The largest norm of one example's gradient, over all leaves, > 0.

    Returns:
      The sums, without the first axis, and the number of examples that were clipped.

    Raises:
      ValueError: The first axes of the leaves differ in length, or a leaf has none.

    Abadi et al., "Deep learning with differential privacy", 2016.

    >>> sums, clipped = per_example_global_norm_clip({"w": jnp.array([0.5, -9.0])}, 1.0)
    >>> sums["w"], int(clipped)
    (Array(-0.5, dtype=float32), 1)
    """
    _example_count(grads)
    norms = jax.vmap(tree.norm)(grads)
    factors = jnp.minimum(1, l2_norm_clip / jnp.where(norms == 0, 1, norms))
    sums = jax.tree.map(lambda g: _weighted_sum(g, factors), grads)
    return sums, jnp.sum(norms > l2_norm_clip)


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: float | jax.Array, uniform: bool = True
) -> tuple[Updates, Any]:
    """Clip each leaf of each example's gradient to a norm, and sum over the examples.

    The largest norms of the leaves combine to ``global_l2_norm_clip``, the largest norm
    of all leaves together.

    Args:
      grads: Gradients with the examples along the first axis of each leaf.
      global_l2_norm_clip: The largest norm of one example's gradient, > 0.
      uniform: Whether all leaves have the same largest norm; False makes it
        proportional to the square root of their size.

    Returns:
      The sums, without the first axis, and for each leaf the number of examples that
      were clipped.

    Raises:
      ValueError: The first axes of the leaves differ in length, or a leaf has none.

    McMahan, Andrew, Erlingsson, Chien, Mironov, Papernot & Kairouz, "A general approach
    to adding differential privacy to iterative training procedures", 2018.

    >>> grads = {"a": jnp.array([[3.0], [0.1]]), "b": jnp.array([[4.0], [0.0]])}
    >>> sums, clipped = per_example_layer_norm_clip(grads, 2**0.5)
    >>> sums["a"].round(2), int(clipped["b"])
    (Array([1.1], dtype=float32), 1)
    """
    examples = _example_count(grads)
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [g.size / examples for g in leaves]
    shares = [1 / len(leaves) if uniform else n / sum(sizes) for n in sizes]
    sums, clipped = [], []
    for g, share in zip(leaves, shares, strict=True):
        largest = global_l2_norm_clip * share**0.5
        norms = jax.vmap(tree.norm)(g)
        factors = jnp.minimum(1, largest / jnp.where(norms == 0, 1, norms))
        sums.append(_weighted_sum(g, factors))
        clipped.append(jnp.sum(norms > largest))
    return treedef.unflatten(sums), treedef.unflatten(clipped)


def clipped_grad_sum(
    grad_fn: Callable[..., Updates],
    l2_norm_clip: float | jax.Array,
    micro_batches: int = 1,
    *,
    argnums: int | Sequence[int] = 1,
) -> Callable[..., tuple[Updates, jax.Array]]:
    """Sum the clipped gradients of a batch, from a function for one example.

    Per-example gradients exist for only one micro-batch at a time. Pass the sum to
    `dpsgd` with the number of examples: ``update(sums, state, params, examples=n)``.

    Args:
      grad_fn: The gradient of the loss of one example, such as ``jax.grad(loss)``, as a
        function of params and that example.
      l2_norm_clip: The largest norm of one example's gradient, over all leaves, > 0.
        Use the same number for `dpsgd`.
      micro_batches: Number of parts that `micro_batch` splits the batch into, >= 1.
      argnums: The arguments that hold examples, along the first axis of each leaf.

    Returns:
      A function of params and a batch that returns the sums, in float32 or wider, and
      the number of examples that were clipped.

    Raises:
      ValueError: A number is out of range, or the batch cannot be split evenly.

    Abadi et al., "Deep learning with differential privacy", 2016.

    >>> import jopt
    >>> grad = jax.grad(lambda w, x: w * x)
    >>> sums, clipped = jopt.clipped_grad_sum(grad, 1.0, micro_batches=2)(
    ...     jnp.float32(0.0), jnp.array([0.5, -9.0, 0.25, 0.0])
    ... )
    >>> sums, int(clipped)
    (Array(-0.25, dtype=float32), 1)
    """
    arguments.positive(l2_norm_clip=l2_norm_clip)
    split = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def clipped(*args, **kwargs):
        axes = tuple(0 if i in split else None for i in range(len(args)))
        grads = jax.vmap(lambda *one: grad_fn(*one, **kwargs), axes)(*args)
        return per_example_global_norm_clip(grads, l2_norm_clip)

    return micro_batch(clipped, micro_batches, argnums=argnums, reduce="sum")


def _example_count(grads: Updates) -> int:
    """Return the number of examples."""
    named = tree.leaves_with_names(grads)
    tree_checks.leaves([g for _, g in named], grads, "updates")
    counts = [(path, g.shape[0] if np.ndim(g) else None) for path, g in named]
    examples = counts[0][1] if counts else None
    if examples is None or {n for _, n in counts} != {examples}:
        raise ValueError(
            "per-example gradients must have the examples along the first axis of each "
            f"leaf, but the first axes have the lengths {dict(counts)}. Compute them "
            "with jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, batch)"
        )
    return examples


@jax.jit
def _weighted_sum(g: jax.Array, factors: jax.Array) -> jax.Array:
    wide = tree.compute_dtype(g.dtype)
    real = jnp.finfo(wide).dtype
    # A non-finite gradient makes the sum NaN, so it does not go unnoticed.
    return jnp.tensordot(factors.astype(real), g.astype(wide), 1)


class DifferentiallyPrivateAggregateState(NamedTuple):
    """State of `differentially_private_aggregate`."""

    key: jax.Array  # uint32, data of the next key


@transformation
def differentially_private_aggregate(
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    key: int | jax.Array,
) -> GradientTransformation:
    """Average the clipped gradients of the examples, and add noise.

        u <- (sum_i g_i min(1, C / |g_i|) + N(0, sigma^2 C^2)) / n

    Args:
      l2_norm_clip: C, the largest norm of one example's gradient, > 0.
      noise_multiplier: sigma, the standard deviation of the noise relative to C, >= 0.
      key: A key of ``jax.random`` for the noise, or its seed. Keep it secret.

    Returns:
      A transformation for the start of a chain. Its input has the examples along the
      first axis of each leaf; its output does not. With ``update(…, examples=n)``, the
      input is the sum over n examples from `clipped_grad_sum`, and is not clipped
      again.

    Raises:
      ValueError: A number is out of range, or ``key`` is more than one key.

    Abadi et al., "Deep learning with differential privacy", 2016.

    >>> import jopt
    >>> tx = jopt.differentially_private_aggregate(1.0, 0.0, key=0)
    >>> tx.update({"w": jnp.array([[0.5], [-9.0]])}, tx.init({"w": jnp.ones(1)}))[0]
    {'w': Array([-0.25], dtype=float32)}
    """
    arguments.positive(l2_norm_clip=l2_norm_clip)
    arguments.nonnegative(noise_multiplier=noise_multiplier)
    keys = KeyStream(key)

    def init(params):
        Leaves(params, "params")
        return DifferentiallyPrivateAggregateState(keys.initial())

    def update(updates, state, *, examples=None):
        sums = updates
        if examples is None:
            examples = _example_count(updates)
            sums, _ = per_example_global_norm_clip(updates, l2_norm_clip)
        else:
            arguments.one_number("examples", examples)
            arguments.positive(examples=examples)
            # Noise is added in float32 or wider, and the mean rounded once.
            sums = Leaves(updates).widened()
        leaves, treedef = jax.tree.flatten(sums)
        data, drawn = keys.split(state.key, len(leaves))
        deviation = l2_norm_clip * noise_multiplier
        noisy = [
            _noisy_mean(g, deviation, k, examples, grad.dtype)
            for g, k, grad in zip(leaves, drawn, jax.tree.leaves(updates), strict=True)
        ]
        return treedef.unflatten(noisy), DifferentiallyPrivateAggregateState(data)

    return GradientTransformation(
        init, update, state_class=DifferentiallyPrivateAggregateState
    )


def _noisy_mean(total: Any, deviation: Any, key: Any, examples: Any, dtype: Any) -> Any:
    real = jnp.finfo(total.dtype).dtype
    noise = jax.random.normal(key, total.shape, total.dtype)
    noise = noise * jnp.asarray(deviation, real)
    return ((total + noise) / jnp.asarray(examples).astype(total.dtype)).astype(dtype)


@transformation
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    key: int | jax.Array,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """DP-SGD: differentially private gradient descent, from per-example gradients.

    Args:
      learning_rate: The step size, >= 0.
      l2_norm_clip, noise_multiplier, key: See `differentially_private_aggregate`.
      momentum, nesterov: See `sgd`.

    Returns:
      A transformation, with the input of `differentially_private_aggregate`.

    Raises:
      ValueError: A number is out of range, or ``key`` is more than one key.

    Matches optax except for the noise drawn. Abadi et al., "Deep learning with
    differential privacy", 2016.

    >>> import jopt
    >>> jopt.dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=1.1, key=0)
    dpsgd(learning_rate=0.1, l2_norm_clip=1.0, noise_multiplier=1.1, key=0)
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, key),
        sgd(learning_rate, momentum, nesterov),
    )
