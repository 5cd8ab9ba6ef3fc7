"""The first optimizers, and the first transformations."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from .base import Array, EpsMode, Scalar, at, denominator, double, steps


# Optimizers: they yield the parameters.


def sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    lr_in_momentum: bool = False,
) -> Iterator[Array]:
    """Polyak, 1964, "Some methods of speeding up the convergence of iteration methods".

    ``nesterov``: Sutskever et al., 2013, "On the importance of initialization".
    """
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        mu = 0.0 if momentum is None else at(momentum, t)
        if lr_in_momentum:
            b = mu * b + lr * g
            step = lr * g + mu * b if nesterov else b
        else:
            b = mu * b + g
            step = lr * (g + mu * b) if nesterov else lr * b
        p = p - step
        yield p


def adam(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    nesterov: bool = False,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Kingma & Ba, 2015, "Adam: a method for stochastic optimization", algorithm 1.

    "before" is the form at the end of its section 2; ``nesterov`` is Dozat's, 2016.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


def adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    nesterov: bool = False,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Loshchilov & Hutter, 2019, "Decoupled weight decay regularization".

    Algorithm 2, with the decay multiplied by the learning rate.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * (m_hat / root + at(weight_decay, t) * p)
        yield p


def nadam(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    momentum_decay: Scalar | None = None,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Dozat, 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.

    Momentum rises as ``mu_t = b1 (1 - 0.96**(t * momentum_decay) / 2)``, or is ``b1``.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    product = 1.0  # mu_1 mu_2 ... mu_t
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        if momentum_decay is None:
            mu, mu_next = beta1, beta1
            product = beta1**t
        else:
            psi = at(momentum_decay, t)
            mu = beta1 * (1 - 0.5 * 0.96 ** (t * psi))
            mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * psi))
            product = product * mu
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


def amsgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    maximum: Literal["corrected", "raw"] = "corrected",
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Reddi, Kale & Kumar, 2018, "On the convergence of Adam and beyond".

    Algorithm 2, to which the corrections are added; ``maximum`` is taken after that of
    ``v``, or before ("raw").
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    v_max = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        correction_m = 1 - beta1**t if bias_correction_mu else 1.0
        correction_v = 1 - beta2**t if bias_correction_nu else 1.0
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / correction_m
        if maximum == "corrected":
            v_max = np.maximum(v_max, v / correction_v)
            v_hat = v_max
        else:
            v_max = np.maximum(v_max, v)
            v_hat = v_max / correction_v
        root = denominator(v_hat, correction_v, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


def rmsprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    lr_in_momentum: bool = True,
) -> Iterator[Array]:
    """Tieleman & Hinton, 2012, "Lecture 6.5: RMSProp".

    ``centered``: Graves, 2013, "Generating sequences with recurrent neural networks".
    """
    p = double(p)
    a = np.zeros_like(p)  # mean of the gradient
    v = np.full(p.shape, initial_scale)  # mean of its square
    b = np.zeros_like(p)  # momentum
    for t, g in steps(grads):
        lr, rho, e = at(learning_rate, t), at(decay, t), at(eps, t)
        mu = 0.0 if momentum is None else at(momentum, t)
        correction = 1 - rho**t if bias_correction else 1.0
        v = rho * v + (1 - rho) * np.abs(g) ** 2
        a = rho * a + (1 - rho) * g
        power = v / correction
        if centered:  # a variance: below zero only by rounding
            power = np.maximum(power - np.abs(a / correction) ** 2, 0.0)
        root = np.sqrt(power + e) if eps_in_sqrt else np.sqrt(power) + e
        d = lr * g / root if lr_in_momentum else g / root
        b = mu * b + d
        step = d + mu * b if nesterov else b
        p = p - step if lr_in_momentum else p - lr * step
        yield p


def adagrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    initial_accumulator_value: float = 0.1,
    eps: Scalar = 1e-7,
    eps_in_sqrt: bool = True,
) -> Iterator[Array]:
    """Duchi, Hazan & Singer, 2011, "Adaptive subgradient methods", figure 1.

    A coordinate that has seen no gradient makes no step.
    """
    p = double(p)
    s = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        e = at(eps, t)
        s = s + np.abs(g) ** 2
        root = np.sqrt(s + e) if eps_in_sqrt else np.sqrt(s) + e
        root = np.where(s == 0, 1.0, root)  # no gradient so far: no step
        p = p - at(learning_rate, t) * g / root
        yield p


def adadelta(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zeiler, 2012, "ADADELTA: an adaptive learning rate method", algorithm 1.

    The weight decay is L2 regularization, a part of the gradient.
    """
    p = double(p)
    mean_g2 = np.zeros(p.shape)
    mean_d2 = np.zeros(p.shape)
    for t, g in steps(grads):
        r, e = at(rho, t), at(eps, t)
        g = g + at(weight_decay, t) * p
        mean_g2 = r * mean_g2 + (1 - r) * np.abs(g) ** 2
        d = np.sqrt(mean_d2 + e) / np.sqrt(mean_g2 + e) * g
        mean_d2 = r * mean_d2 + (1 - r) * np.abs(d) ** 2
        p = p - at(learning_rate, t) * d
        yield p


def adamax(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_in_max: bool = True,
) -> Iterator[Array]:
    """Kingma & Ba, 2015, "Adam: a method for stochastic optimization", algorithm 2.

    The paper has no eps; it is part of the maximum or of the denominator.
    """
    p = double(p)
    m = np.zeros_like(p)
    u = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2, e = at(b1, t), at(b2, t), at(eps, t)
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1**t)
        if eps_in_max:
            u = np.maximum(beta2 * u, np.abs(g) + e)
            d = m_hat / u
        else:
            u = np.maximum(beta2 * u, np.abs(g))
            d = m_hat / (u + e)
        p = p - at(learning_rate, t) * d
        yield p


def ftrl(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1: Scalar = 0.0,
    l2: Scalar = 0.0,
    l2_shrinkage: Scalar = 0.0,
    beta: Scalar = 0.0,
) -> Iterator[Array]:
    """McMahan et al., 2013, "Ad click prediction", algorithm 1.

    Its lambda_2 is ``2 * l2``; the shrinkage is a gradient that ``n`` does not see.
    """
    p = double(p)
    z = np.zeros_like(p)
    n = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        alpha, lambda1 = at(learning_rate, t), at(l1, t)
        n_old, n = n, n + g**2
        root_old, root = n_old**-learning_rate_power, n**-learning_rate_power
        sigma = (root - root_old) / alpha
        z = z + g + 2 * at(l2_shrinkage, t) * p - sigma * p
        q = (at(beta, t) + root) / alpha + 2 * at(l2, t)
        is_zero = np.abs(z) <= lambda1
        q = np.where(is_zero, 1.0, q)  # not 0 / 0 where no gradient was seen
        p = np.where(is_zero, 0.0, -(z - np.sign(z) * lambda1) / q)
        yield p


def lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
) -> Iterator[Array]:
    """Chen et al., 2023, "Symbolic discovery of optimization algorithms".

    Algorithm 2: the step is the sign of one average, the memory is another.
    """
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        c = beta1 * m + (1 - beta1) * g
        m = beta2 * m + (1 - beta2) * g
        p = p - at(learning_rate, t) * (np.sign(c) + at(weight_decay, t) * p)
        yield p


# Transformations: they yield the updates. All take ``p``, most do not look at it.


def trace(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    nesterov: bool = False,
) -> Iterator[Array]:
    """Polyak, 1964, "Some methods of speeding up the convergence of iteration methods".

    ``nesterov``: Sutskever et al., 2013, "On the importance of initialization".
    """
    b = np.zeros_like(double(p))
    for t, g in steps(grads):
        mu = at(decay, t)
        b = mu * b + g
        yield g + mu * b if nesterov else b


def ema(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    debias: bool = True,
) -> Iterator[Array]:
    """The exponential moving average.

    ``debias``: Kingma & Ba, 2015, "Adam: a method for stochastic optimization".
    """
    m = np.zeros_like(double(p))
    for t, g in steps(grads):
        beta = at(decay, t)
        m = beta * m + (1 - beta) * g
        yield m / (1 - beta**t) if debias else m


def add_decayed_weights(
    p: Array, grads: Iterable[Array], *, weight_decay: Scalar = 0.0
) -> Iterator[Array]:
    """Krogh & Hertz, 1991, "A simple weight decay can improve generalization".

    The gradient of ``weight_decay / 2 * |p|**2`` is added.
    """
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * p


def clip(p: Array, grads: Iterable[Array], *, max_delta: Scalar) -> Iterator[Array]:
    """Mikolov, 2012, "Statistical language models based on neural networks".

    Each element on its own.
    """
    for t, g in steps(grads):
        c = at(max_delta, t)
        yield np.minimum(np.maximum(g, -c), c)


def clip_by_norm(
    p: Array, grads: Iterable[Array], *, max_norm: Scalar
) -> Iterator[Array]:
    """Pascanu, Mikolov & Bengio, 2013, "On the difficulty of training RNNs".

    Algorithm 1, on the norm of this array alone.
    """
    for t, g in steps(grads):
        c = at(max_norm, t)
        norm = np.sqrt(np.sum(np.abs(g) ** 2))
        yield g * (c / norm) if norm > c else g


def clip_by_global_norm(
    p: Mapping[str, Array],
    grads: Iterable[Mapping[str, Array]],
    *,
    max_norm: Scalar,
) -> Iterator[dict[str, Array]]:
    """Pascanu, Mikolov & Bengio, 2013, "On the difficulty of training RNNs".

    Algorithm 1, on the norm of all the arrays of a dict together.
    """
    for t, tree in enumerate(grads, start=1):
        c = at(max_norm, t)
        g = {name: double(leaf) for name, leaf in tree.items()}
        norm = np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in g.values()))
        factor = c / norm if norm > c else 1.0
        yield {name: factor * leaf for name, leaf in g.items()}


def clip_by_block_rms(
    p: Array, grads: Iterable[Array], *, threshold: Scalar
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 6.

    The root mean square of the array is at most the threshold.
    """
    for t, g in steps(grads):
        rms = np.sqrt(np.mean(np.abs(g) ** 2)) if g.size else 0.0
        yield g / max(1.0, rms / at(threshold, t))


def unitwise_norm(x: Array, axis: int | tuple[int, ...] | None) -> Array:
    """The norm of each unit, the weights of one output; ``axis`` runs along a unit.

    By default a vector is one unit, three axes have it along the first, and all other
    arrays along every axis but the last.
    """
    if axis is None:
        if np.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim == 3:
            axis = 0
        else:
            axis = tuple(range(x.ndim - 1))
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=axis, keepdims=True))


def adaptive_grad_clip(
    p: Array,
    grads: Iterable[Array],
    *,
    clipping: Scalar,
    eps: Scalar = 1e-3,
    axis: int | tuple[int, ...] | None = None,
) -> Iterator[Array]:
    """Brock et al., 2021, "High-performance large-scale image recognition".

    Equation 3: the norm of a unit's gradient is at most ``clipping`` times the unit's.
    """
    p = double(p)
    for t, g in steps(grads):
        max_norm = at(clipping, t) * np.maximum(unitwise_norm(p, axis), at(eps, t))
        norm = unitwise_norm(g, axis)
        yield g * (max_norm / np.maximum(norm, max_norm))


def centralize(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """Yong et al., 2020, "Gradient centralization", equation 1.

    The mean over all axes but the first is taken off; scalars and vectors pass.
    """
    for _, g in steps(grads):
        if g.ndim > 1 and g.size > 0:
            g = g - np.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True)
        yield g


def zero_nans(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """No paper: NaN becomes zero, infinities stay."""
    for _, g in steps(grads):
        yield np.where(np.isnan(g), 0.0, g)


def scale_by_sign(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 1."""
    for _, g in steps(grads):
        yield np.sign(g)


def scale_by_trust_ratio(
    p: Array,
    grads: Iterable[Array],
    *,
    min_norm: Scalar = 0.0,
    trust_coefficient: Scalar = 1.0,
    eps: Scalar = 0.0,
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training of convolutional networks".

    Where the parameters or the update have norm zero, the update passes unscaled.
    """
    p = double(p)
    for t, g in steps(grads):
        p_norm = max(np.sqrt(np.sum(np.abs(p) ** 2)), at(min_norm, t))
        g_norm = max(np.sqrt(np.sum(np.abs(g) ** 2)), at(min_norm, t))
        if p_norm == 0 or g_norm == 0:
            yield g
        else:
            yield g * (at(trust_coefficient, t) * p_norm / (g_norm + at(eps, t)))
