"""StableAdamW: AdamW with smaller steps while its second moment is out of date.

    m, v as in Adam
    rms <- sqrt(mean(g^2 / max(v^, eps^2)))             of each leaf
    u   <- (m^ / (sqrt(v^) + eps) + weight_decay p) / max(1, rms)

Wortsman, Dettmers, Zettlemoyer, Morcos, Farhadi & Schmidt, "Stable and low-precision
training for large-scale vision-language models", 2023, algorithm 2: Adafactor's update
clipping for AdamW. With a slow b2, gradients that grow suddenly, as those of embeddings
do, cause loss spikes; with this no gradient clipping is needed. State: 8 bytes per
float32 parameter. AdamW's learning rate and decay, b2 = 0.95 to 0.99.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core import masks
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import leafwise, zeros
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.tree import abs_sq, one_minus_power, ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByStableAdamwState(NamedTuple):
    """State of `scale_by_stable_adamw`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params, real


@transformation
def scale_by_stable_adamw(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Rescale by Adam's moments, and by how far the gradient exceeds them.

        u <- (m^ / (sqrt(v^) + eps) + weight_decay p) / max(1, rms(g / sqrt(v^)))

    Args:
      b1, b2: See `scale_by_adam`.
      eps: Added to the root, and the smallest root in rms; > 0.
      mu_dtype: See `scale_by_adam`.
      weight_decay: Decay rate, >= 0. It is an argument here, because the paper's
        smaller steps also decay less.
      nu_dtype: See `scale_by_adam`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Wortsman et al., "Stable and low-precision training for large-scale vision-language
    models", 2023.

    >>> import jopt
    >>> tx, p = jopt.scale_by_stable_adamw(b1=0.0), jnp.zeros(1)
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(p), p)
    >>> tx.update(jnp.array([100.0]), state, p)[0].round(4)  # scale_by_adam: 1.4107
    Array([1.], dtype=float32)
    """
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps)
    arguments.nonnegative(weight_decay=weight_decay)

    def scalars(t):
        return {
            "mu_scale": 1 / one_minus_power(b1, t),
            "nu_scale": 1 / one_minus_power(b2, t),
        }

    def rule(g, mu, nu, *, mu_scale, nu_scale, p):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        root = jnp.sqrt(nu_scale * nu)
        size = ratio(jnp.abs(g), jnp.maximum(root, eps), eps)
        mean_square = jnp.sum(size * size) / max(g.size, 1)
        u = ratio(mu_scale * mu, root + eps, eps) + weight_decay * p
        return u / jnp.sqrt(jnp.maximum(mean_square, 1)), mu, nu

    return leafwise(
        rule,
        scalars,
        ScaleByStableAdamwState,
        treatment=Treatment(decay=(weight_decay,)),
        mu=zeros(mu_dtype),
        nu=zeros(nu_dtype, real=True, divides=True),
    )


@transformation
def stable_adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: StorageDtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    *,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """StableAdamW: AdamW with the update clipping of Adafactor.

        p <- p - learning_rate (m^ / (sqrt(v^) + eps) + weight_decay p) / max(1, rms)

    Where the gradients of a leaf exceed their second moment, ``rms``, the root mean
    square of ``g / sqrt(v^)``, reduces the step. This prevents loss spikes and replaces
    gradient clipping. Use AdamW's settings with b2 from 0.95 to 0.99.

    Args:
      learning_rate: Step size, >= 0.
      b1, b2: See `scale_by_stable_adamw`.
      eps: Added to the root, and the smallest root in rms; > 0; pytorch_optimizer's
        default is 1e-8.
      mu_dtype: See `scale_by_stable_adamw`.
      weight_decay: Decay rate, >= 0, multiplied by the reduced learning rate of the
        step.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_stable_adamw`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Wortsman et al., "Stable and low-precision training for large-scale vision-language
    models", 2023. Equal to optimi's and pytorch_optimizer's StableAdamW.

    >>> import jopt
    >>> jopt.stable_adamw(1e-3, weight_decay=0.1, mask="kernel")
    stable_adamw(learning_rate=0.001, weight_decay=0.1, mask='kernel')
    """
    core = scale_by_stable_adamw(b1, b2, eps, mu_dtype, weight_decay, nu_dtype=nu_dtype)
    return chain(
        core if mask is None else _masked_decay(core, mask),
        scale_by_learning_rate(learning_rate),
    )


def _masked_decay(inner: GradientTransformation, mask: Mask) -> GradientTransformation:
    """Return ``inner`` with zeros in place of the parameters that must not decay."""

    def init(params):
        masks.select(mask, params)  # raise early if the mask does not fit
        return inner.init(params)

    def update(updates, state, params):
        leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
        chosen = masks.select(mask, params)
        # Only the decay reads the parameters, so zeros disable it leaf by leaf.
        decayed = treedef.unflatten(
            p if on or p is None else jnp.zeros_like(p)
            for p, on in zip(leaves, chosen, strict=True)
        )
        return inner.update(updates, state, decayed)

    return GradientTransformation(
        init,
        update,
        needs=inner.needs,
        changing=inner.changing,
        treatment=inner.treatment and inner.treatment._replace(mask=mask),
        fixed_name=inner.name,
    )
