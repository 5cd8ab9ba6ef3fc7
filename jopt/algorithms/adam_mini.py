"""Adam-mini: Adam with one second moment per block of parameters.

    m <- b1 m + (1 - b1) g
    v <- b2 v + (1 - b2) mean(g^2 over the block)
    u <- m^ / (sqrt(v^) + eps)        with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t)

Zhang et al., "Adam-mini: use fewer learning rates to gain more", 2024. A block is a
dense diagonal block of the Hessian: the weights of one output of a layer, one token of
an embedding, or one head of queries and keys. State: 4 bytes per float32 parameter,
half of AdamW's; 1 with ``mu_dtype="int8"``. Use AdamW's settings, and for language
models b2 = 0.95 and weight decay 0.1.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.wide_slots import with_slots
from jopt.core.widening import widened
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule
from jopt.values.registry import config_function


# The elements that share a second moment: those at one index of the last axis
# ("output"), of the first ("input"), of all axes but the first ("neuron"), of the
# second-to-last axis or one head_dim of the last ("head"); the whole leaf ("tensor");
# or single elements ("element").
Block = Literal["element", "head", "input", "neuron", "output", "tensor"]


class ScaleByAdamMiniState(NamedTuple):
    """State of `scale_by_adam_mini`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, with length 1 along the axes of a block


@transformation
def scale_by_adam_mini(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    *,
    blocks: Callable[[str, Any], Block] | None = None,
    head_dim: int | None = None,
) -> GradientTransformation:
    """Adam with a second moment per block: ``u <- m^ / (sqrt(v^) + eps)``.

    Args:
      b1: Decay of the first moment, in [0, 1).
      b2: Decay of the second moment, in [0, 1).
      eps: Added to the square root, > 0.
      mu_dtype: See `scale_by_adam`.
      blocks: ``blocks(path, leaf)`` says which elements of a leaf share a second
        moment. ``"output"``: those at one index of the last axis, as in kernels (in,
        out) and (h, w, in, out). ``"input"``: those at one index of the first axis, as
        in an embedding (token, features). ``"neuron"``: those along the first axis, as
        in (in, heads, features). ``"head"``: those at one index of the second-to-last
        axis, as in (in, heads, features), or at ``head_dim`` neighbouring indices of
        the last axis, as in (in, heads * features). ``"tensor"``: all. ``"element"``:
        none. None means ``default_block``, which recognizes embeddings, queries, keys
        and values by their usual names.
      head_dim: Length of a head, for leaves whose heads have no axis of their own.

    Returns:
      A transformation, for real numbers.

    Raises:
      ValueError: A number is out of range, or, once the leaves are known, a leaf does
        not have the blocks that ``blocks`` assigns to it.
      TypeError: ``blocks`` is not a function.

    Zhang et al., "Adam-mini: use fewer learning rates to gain more", 2024.

    >>> import jopt
    >>> tx = jopt.scale_by_adam_mini()
    >>> params = {"bias": jnp.ones(3), "embedding": jnp.ones((5, 2))}
    >>> params |= {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    >>> {name: x.shape for name, x in tx.init(params).nu.items()}
    {'bias': (3,), 'embedding': (5, 1), 'kernel': (1, 3), 'scale': (1,)}
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps)
    if head_dim is not None:
        arguments.at_least(1, head_dim=head_dim)
    if blocks is not None and not callable(blocks):
        raise TypeError(
            f"blocks must be a function of (path, leaf), got {text_of(blocks)}"
        )
    block_of = blocks or functools.partial(default_block, head_dim=head_dim)
    mu_slot = zeros(mu_dtype)

    def init(params):
        leaves = Leaves(params, "params", real_only="scale_by_adam_mini")
        nu = []
        for p, block in zip(leaves.values, masks.labels(block_of, params), strict=True):
            if p is None:
                nu.append(None)
                continue
            axes = axes_of(block, jnp.shape(p), head_dim)
            nu.append(zeros(over=lambda _, axes=axes: axes).init(p))
        count = jnp.zeros((), jnp.int32)
        return ScaleByAdamMiniState(count, mu_slot.initial(params), leaves.tree(nu))

    def update(updates, state, params=None):
        leaves = Leaves(updates, real_only="scale_by_adam_mini")
        new, mu = leaves.values, leaves.aligned(state.mu, "the state's mu")
        nu = leaves.treedef.flatten_up_to(state.nu)
        count = tree.safe_increment(state.count)
        # Constants are compiled in as Python doubles, so 1 - b2 keeps its digits;
        # schedules and tunables are arguments, so a new value compiles nothing.
        numbers = (b1, b2, eps)
        constants = tuple(x if isinstance(x, float) else None for x in numbers)
        changing = tuple(None if isinstance(x, float) else x for x in numbers)
        labels = masks.labels(block_of, updates if params is None else params)
        for i, (g, block) in enumerate(zip(new, labels, strict=True)):
            if g is not None:
                axes = axes_of(block, jnp.shape(g), head_dim)
                length = head_dim if block == "head" else None
                new[i], mu[i], nu[i] = _step(
                    g, mu[i], nu[i], count, changing, constants, axes, length
                )
        state = ScaleByAdamMiniState(count, leaves.tree(mu), leaves.tree(nu))
        return leaves.tree(new), state

    tx = GradientTransformation(init, update)
    return with_slots(tx, ScaleByAdamMiniState, mu=mu_slot)


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _step(
    g: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
    count: jax.Array,
    changing: tuple[Any, ...],
    constants: tuple[Any, ...],
    axes: tuple[int, ...],
    length: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the update and the new moments of one leaf.

    Squares are averaged over the axes and, with ``length``, also over that many
    neighbours in the last axis.
    """
    tree_checks.dtypes(g, None, (mu, nu))
    wide = functools.reduce(np.promote_types, (g.dtype, mu.dtype, nu.dtype), np.float32)
    b1, b2, eps = (
        constant if value is None else value.astype(wide)
        for constant, value in zip(constants, changing, strict=True)
    )
    t = tree.scalar(count).astype(wide)
    u = g.astype(wide)
    # Not jnp.mean, which is NaN for a leaf without elements.
    squares = jnp.sum(u * u, axes, keepdims=True) / max(g.size // max(nu.size, 1), 1)
    if length is not None:
        # nu keeps one number per index of the last axis, equal within a head.
        heads = squares.reshape(-1, length)
        mean = jnp.mean(heads, 1, keepdims=True)
        squares = jnp.broadcast_to(mean, heads.shape).reshape(nu.shape)
    new_mu = b1 * mu.astype(wide) + (1 - b1) * u
    new_nu = b2 * nu.astype(wide) + (1 - b2) * squares
    mu_hat = new_mu / tree.one_minus_power(b1, t)
    nu_hat = new_nu / tree.one_minus_power(b2, t)
    u = tree.ratio(mu_hat, jnp.sqrt(nu_hat) + eps, eps)
    return u.astype(g.dtype), new_mu.astype(mu.dtype), new_nu.astype(nu.dtype)


_HEADS = re.compile(r"(^|[/_.])(query|key|[qk]_proj|w[qk])([/_.]|$)")
_VALUES = re.compile(r"(^|[/_.])(value|v_proj|wv)([/_.]|$)")
_EMBEDDINGS = re.compile(r"embed|embd|(^|[/_.])wte([/_.]|$)")


@config_function
def default_block(path: str, leaf: Any, head_dim: int | None = None) -> Block:
    """Return the block of a leaf by its name and number of axes.

    Biases get a second moment per element, other vectors a single one. Embeddings get
    one per token. Queries and keys get one per head if heads have an axis or
    ``head_dim`` is set. Values with a head axis get one per neuron. Everything else
    gets one per output.

    >>> default_block("attn/query/kernel", jnp.ones((8, 2, 4)))
    'head'
    """
    path, ndim = path.lower(), jnp.ndim(leaf)
    if "bias" in path:
        return "element"
    if ndim < 2:
        return "tensor"
    if _EMBEDDINGS.search(path):
        return "input"
    if _HEADS.search(path) and (ndim == 3 or head_dim is not None):
        return "head"
    return "neuron" if ndim == 3 and _VALUES.search(path) else "output"


def axes_of(
    block: str, shape: tuple[int, ...], head_dim: int | None
) -> tuple[int, ...]:
    """Return the axes to average over for a block.

    With ``head_dim``, a head is part of the last axis, which is not among them.

    Raises:
      ValueError: The block is unknown, or the leaf has no heads.
    """
    arguments.one_of(get_args(Block), block=block)
    axes = tuple(range(len(shape)))
    if block == "head" and head_dim is not None:
        if not shape or shape[-1] % head_dim:
            raise ValueError(
                f"a leaf of shape {shape} has no heads of head_dim={head_dim} along "
                "its last axis; return another block for it from blocks"
            )
        return axes[:-1]
    if block == "head" and len(shape) < 2:
        raise ValueError(
            f"a leaf of shape {shape} has no axis for heads; return another block for "
            "it from blocks, or set head_dim"
        )
    return {
        "element": (),
        "head": axes[:-2] + axes[-1:],
        "input": axes[1:],
        "neuron": axes[:1],
        "output": axes[:-1],
        "tensor": axes,
    }[block]


@transformation
def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    blocks: Callable[[str, Any], Block] | None = None,
    head_dim: int | None = None,
) -> GradientTransformation:
    """Adam-mini: ``p <- p - learning_rate (m^ / (sqrt(v^) + eps) + weight_decay p)``.

    Args:
      learning_rate: The step size, >= 0; as for AdamW.
      b1, b2, eps, mu_dtype: See `scale_by_adam_mini`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate; 0.1 in the
        paper.
      mask: The leaves to decay, in any form of `jopt.Mask`. The authors exclude norms
        and biases.
      blocks, head_dim: See `scale_by_adam_mini`.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, or, once the leaves are known, a leaf does
        not have the blocks that ``blocks`` assigns to it.
      TypeError: ``blocks`` is not a function.

    Zhang et al., "Adam-mini: use fewer learning rates to gain more", 2024. With equal
    blocks, matches the authors' code exactly; their torch kernels are (out, in).

    >>> import jopt
    >>> jopt.adam_mini(1e-3, b2=0.95, weight_decay=0.1, mask="kernel")
    adam_mini(learning_rate=0.001, b2=0.95, weight_decay=0.1, mask='kernel')
    """
    members: Any = chain(
        scale_by_adam_mini(b1, b2, eps, mu_dtype, blocks=blocks, head_dim=head_dim),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    # scale_by_adam_mini is not leafwise, so a chain would round its updates to the
    # gradient's dtype before the weight decay is added.
    return widened(members)
