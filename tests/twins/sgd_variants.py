"""Relatives of gradient descent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from .base import Array, Scalar, at, double, steps


Tree = Mapping[str, Array]


def _size(x: Array) -> Any:
    """The L2 norm of all elements."""
    return np.sqrt(np.sum(np.abs(x) ** 2))


def _inner(x: Tree, y: Tree) -> Any:
    """The inner product of two dicts of real arrays."""
    return sum(np.sum(x[name] * y[name]) for name in x)


def _ratio(p: Array, g: Array, denominator: Any, min_norm: float = 0.0) -> Any:
    """``|p| / denominator``, or 1 where ``|p|`` or ``|g|`` is zero."""
    p_norm, g_norm = max(_size(p), min_norm), max(_size(g), min_norm)
    return p_norm / denominator if p_norm > 0 and g_norm > 0 else 1.0


# Optimizers: they yield the parameters.


def dampened_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar,
    dampening: Scalar,
) -> Iterator[Array]:
    """torch.optim.SGD: the first gradient is not dampened."""
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        b = at(momentum, t) * b + (1 - at(dampening, t)) * g if t > 1 else g
        p = p - at(learning_rate, t) * b
        yield p


def sign_sgd(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar
) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 1."""
    p = double(p)
    for t, g in steps(grads):
        p = p - at(learning_rate, t) * np.sign(g)
        yield p


def signum(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar, beta: Scalar = 0.9
) -> Iterator[Array]:
    """Bernstein et al., 2018, "signSGD: compressed optimisation", algorithm 2."""
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        b = at(beta, t)
        m = b * m + (1 - b) * g
        p = p - at(learning_rate, t) * np.sign(m)
        yield p


def soft_lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Scalar = 1.0,
) -> Iterator[Array]:
    """Chen et al., 2023, "Symbolic discovery", with something softer than the sign."""
    p = double(p)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        c = at(b1, t) * m + (1 - at(b1, t)) * g
        m = at(b2, t) * m + (1 - at(b2, t)) * g
        if mode == "smooth":
            u = np.tanh(at(smooth_beta, t) * c)
        else:
            u = np.where(np.abs(c) < 1, c, np.sign(c))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def rprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: float,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = 1e-6,
    max_step_size: Scalar = 50.0,
) -> Iterator[Array]:
    """Riedmiller & Braun, 1993, "A direct adaptive method for faster backpropagation".

    In the form iRprop- of Igel & Hüsken, 2000: where the sign changes there is no step,
    and the next step does not look back at it.
    """
    p = double(p)
    s = np.full(p.shape, learning_rate)
    before = np.zeros(p.shape)
    for t, g in steps(grads):
        product = np.sign(g) * before
        s = np.where(product > 0, s * at(eta_plus, t), s)
        s = np.where(product < 0, s * at(eta_minus, t), s)
        s = np.minimum(np.maximum(s, at(min_step_size, t)), at(max_step_size, t))
        g = np.where(product < 0, 0.0, g)
        p = p - s * np.sign(g)
        before = np.sign(g)
        yield p


def asgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    lambd: Scalar = 1e-4,
    alpha: Scalar = 0.75,
    t0: Scalar = 1e6,
    average: bool = False,
) -> Iterator[Array]:
    """Xu, 2011, "Towards optimal one pass large scale learning", algorithm 2.

    ``average`` yields the average of the parameters instead.
    """
    p = double(p)
    ax = p
    for t, g in steps(grads):
        lr, decay = at(learning_rate, t), at(lambd, t)
        eta = lr / (1 + decay * lr * (t - 1)) ** at(alpha, t)
        p = (1 - decay * eta) * p - eta * g
        ax = ax + (p - ax) / max(1.0, t - 1 - at(t0, t))
        yield ax if average else p


def optimistic_gradient_descent(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
) -> Iterator[Array]:
    """Daskalakis et al., 2018, "Training GANs with optimism", equation 2."""
    p = double(p)
    before = None
    for t, g in steps(grads):
        a, b = at(alpha, t), at(beta, t)
        before = g if before is None else before
        p = p - at(learning_rate, t) * ((a + b) * g - b * before)
        before = g
        yield p


def optimistic_adam_v2(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    nesterov: bool = True,
) -> Iterator[Array]:
    """Daskalakis et al., 2018, "Training GANs with optimism", algorithm 1.

    ``nesterov`` is Dozat's look ahead.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    before = None
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        root = np.sqrt(v / (1 - beta2**t) + at(eps_root, t)) + at(eps, t)
        u = m_hat / root
        change = 0.0 if before is None else u - before
        before = u
        p = p - at(learning_rate, t) * (at(alpha, t) * u + at(beta, t) * change)
        yield p


optimistic_adam = optimistic_adam_v2  # without an optimism of its own


def fromage(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    min_norm: Scalar = 1e-6,
) -> Iterator[Array]:
    """Bernstein et al., 2020, "On the distance between two neural networks", alg. 1."""
    p = double(p)
    for t, g in steps(grads):
        lr, least = at(learning_rate, t), at(min_norm, t)
        u = _ratio(p, g, max(_size(g), least), least) * g
        p = (p - lr * u) / np.sqrt(1 + lr**2)
        yield p


def lars(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
    norm: Literal["separate", "together"] = "separate",
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training", algorithm 1.

    "together" divides by the norm of the gradient with the decay in it.
    """
    p = double(p)
    b = np.zeros_like(p)
    for t, g in steps(grads):
        lr, wd, mu = at(learning_rate, t), at(weight_decay, t), at(momentum, t)
        decayed = g + wd * p
        if norm == "separate":
            size = _size(g) + wd * _size(p) + at(eps, t)
            local = at(trust_coefficient, t) * _ratio(p, g, size)
            local = local if _size(p) > 0 and _size(g) > 0 else 1.0
        else:
            size = _size(decayed) + at(eps, t)
            local = at(trust_coefficient, t) * _ratio(p, decayed, size)
            local = local if _size(p) > 0 and _size(decayed) > 0 else 1.0
        d = lr * local * decayed
        b = mu * b + d
        p = p - (d + mu * b if nesterov else b)
        yield p


def lamb(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    decay: Literal["in_ratio", "before_step"] = "in_ratio",
) -> Iterator[Array]:
    """You et al., 2020, "Large batch optimization for deep learning", algorithm 2.

    "before_step" is Keras's: the parameters are decayed first, and then seen so.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        lr, wd, beta1, beta2 = (at(x, t) for x in (learning_rate, weight_decay, b1, b2))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        root = np.sqrt(v / (1 - beta2**t) + at(eps_root, t)) + at(eps, t)
        u = m / (1 - beta1**t) / root
        if decay == "in_ratio":
            u = u + wd * p
        else:
            p = p - lr * wd * p
        p = p - lr * _ratio(p, u, _size(u)) * u
        yield p


def novograd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Ginsburg et al., 2019, "Stochastic gradient methods with layer-wise", alg. 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = 0.0
    for t, g in steps(grads):
        square = _size(g) ** 2
        v = square if t == 1 else at(b2, t) * v + (1 - at(b2, t)) * square
        u = g / (np.sqrt(v + at(eps_root, t)) + at(eps, t)) + at(weight_decay, t) * p
        m = u if t == 1 else at(b1, t) * m + u
        p = p - at(learning_rate, t) * m
        yield p


def madgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    eps: Scalar = 1e-6,
) -> Iterator[Array]:
    """Defazio & Jelassi, 2021, "Adaptivity without compromise", algorithm 1.

    The weight decay is L2 regularization, a part of the gradient.
    """
    x = x0 = double(p)
    s = np.zeros_like(x0)
    v = np.zeros(x0.shape)
    for t, g in steps(grads):
        lr, e, c = at(learning_rate, t), at(eps, t), 1 - at(momentum, t)
        lamda = (lr + e if lr != 0 else 0.0) * np.sqrt(t)
        g = g + at(weight_decay, t) * x
        s = s + lamda * g
        v = v + lamda * np.abs(g) ** 2
        z = x0 - s / (np.cbrt(v) + e)
        x = (1 - c) * x + c * z
        yield x


# Optimizers that look at all arrays of a dict together, and at the loss.


def momo(
    p: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    value: Callable[[Any], Any],
    beta: Scalar = 0.9,
    lower_bound: float = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Tree]:
    """Schaipp et al., 2024, "MoMo: momentum models", algorithms 1 and 3."""
    p = {name: double(x) for name, x in p.items()}
    lb = lower_bound
    d, f, gamma = p, 0.0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        b = 0.0 if t == 1 else at(beta, t)
        f = b * f + (1 - b) * float(value(p))
        gamma = b * gamma + (1 - b) * _inner(g, p)
        d = {name: b * d[name] + (1 - b) * g[name] for name in g}
        norm2, dot = _inner(d, d), _inner(d, p)
        lr, wd = at(learning_rate, t), at(weight_decay, t)
        level = (1 + lr * wd) * (f - gamma) + dot
        if adapt_lower_bound and level < (1 + lr * wd) * lb:
            lb = max(level / (2 * (1 + lr * wd)), lower_bound)
        tau = min(lr, max(level - (1 + lr * wd) * lb, 0.0) / norm2) if norm2 else 0.0
        if adapt_lower_bound:
            lb = max(f + dot - gamma - 0.5 * tau * norm2, lower_bound)
        p = {name: (p[name] - tau * d[name]) / (1 + lr * wd) for name in p}
        yield p


def momo_adam(
    p: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    value: Callable[[Any], Any],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Iterator[Tree]:
    """Schaipp et al., 2024, "MoMo: momentum models", algorithm 2."""
    p = {name: double(x) for name, x in p.items()}
    lb = lower_bound
    d = {name: np.zeros_like(x) for name, x in p.items()}
    v, f, gamma = d, 0.0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        beta1, beta2, e = at(b1, t), at(b2, t), at(eps, t)
        f = beta1 * f + (1 - beta1) * float(value(p))
        gamma = beta1 * gamma + (1 - beta1) * _inner(g, p)
        d = {name: beta1 * d[name] + (1 - beta1) * g[name] for name in g}
        v = {name: beta2 * v[name] + (1 - beta2) * g[name] ** 2 for name in g}
        u = {name: d[name] / (e + np.sqrt(v[name] / (1 - beta2**t))) for name in g}
        norm2, dot, rho = _inner(d, u), _inner(d, p), 1 - beta1**t
        lr, wd = at(learning_rate, t), at(weight_decay, t)
        level = (1 + lr * wd) * (f - gamma) + dot
        if adapt_lower_bound and level < (1 + lr * wd) * rho * lb:
            lb = max(level / (2 * (1 + lr * wd) * rho), lower_bound)
        gap = max(level - (1 + lr * wd) * rho * lb, 0.0)
        tau = min(lr / rho, gap / norm2) if norm2 else 0.0
        if adapt_lower_bound:
            lb = max((f + dot - gamma - 0.5 * tau * norm2) / rho, lower_bound)
        p = {name: (p[name] - tau * u[name]) / (1 + lr * wd) for name in p}
        yield p


# Transformations: they yield the updates.


def scale_by_polyak(
    p: Tree,
    grads: Iterable[Tree],
    *,
    value: Callable[[Any], Any],
    f_min: Scalar = 0.0,
    max_learning_rate: Scalar = 1.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Iterator[Tree]:
    """Loizou et al., 2021, "Stochastic Polyak step-size for SGD", equation SPS_max.

    "sps+": Garrigos, Gower & Schaipp, 2023, "Function value learning".
    """
    p = {name: double(x) for name, x in p.items()}
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        square = sum(_size(x) ** 2 for x in g.values())
        gap = float(value(p)) - at(f_min, t)
        if variant == "sps+":
            gap = max(gap, 0.0)
        step = 0.0
        if square > 0:
            step = min(gap / (square + at(eps, t)), at(max_learning_rate, t))
        yield {name: step * x for name, x in g.items()}


def polyak_sgd(
    p: Tree,
    grads: Iterable[Tree],
    *,
    value: Callable[[Any], Any],
    scaling: Scalar = 1.0,
    **options: Any,
) -> Iterator[Tree]:
    """Loizou et al., 2021, "Stochastic Polyak step-size for SGD"."""
    updates = scale_by_polyak(p, grads, value=value, **options)
    for t, u in enumerate(updates, start=1):
        yield {name: -at(scaling, t) * x for name, x in u.items()}


def scale_by_rprop(p: Array, grads: Iterable[Array], **options: Any) -> Iterator[Array]:
    """Riedmiller & Braun, 1993, "A direct adaptive method for faster backpropagation".

    The steps of `rprop`, which do not depend on the parameters.
    """
    before = np.zeros_like(double(p))
    for after in rprop(before, grads, **options):
        yield before - after
        before = after


def scale_by_lars(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar = 0.0,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
) -> Iterator[Array]:
    """You, Gitman & Ginsburg, 2017, "Large batch training", equation 6."""
    p = double(p)
    for t, g in steps(grads):
        wd, local = at(weight_decay, t), 1.0
        if _size(p) > 0 and _size(g) > 0:
            local = at(trust_coefficient, t) * _size(p)
            local = local / (_size(g) + wd * _size(p) + at(eps, t))
        yield local * (g + wd * p)


def scale_by_decayed_trust_ratio(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """The end of Keras's Lamb."""
    p = double(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        q = p - lr * at(weight_decay, t) * p
        yield q - lr * _ratio(q, g, _size(g)) * g - p


def scale_by_madgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar = 0.9,
    eps: Scalar = 1e-6,
) -> Iterator[Array]:
    """Defazio & Jelassi, 2021, "Adaptivity without compromise", algorithm 1."""
    x = double(p)
    s, v = np.zeros_like(x), np.zeros(x.shape)
    for t, g in steps(grads):
        lr, e = at(learning_rate, t), at(eps, t)
        lamda = (lr + e if lr != 0 else 0.0) * np.sqrt(t)
        s = s + lamda * g
        v = v + lamda * np.abs(g) ** 2
        z = x - s / (np.cbrt(v) + e)
        yield (1 - at(momentum, t)) * (z - x)


def apply_every(p: Array, grads: Iterable[Array], *, k: int = 1) -> Iterator[Array]:
    """No paper: a sum of ``k`` gradients at every ``k``-th step, zero at the others."""
    total = np.zeros_like(double(p))
    for t, g in steps(grads):
        total = total + g
        if t % k:
            yield np.zeros_like(total)
        else:
            yield total
            total = np.zeros_like(total)


def keep_params_nonnegative(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """The projection onto the nonnegative numbers."""
    p = double(p)
    for _, g in steps(grads):
        yield np.maximum(p + g, 0.0) - p


def normalize(p: Tree, grads: Iterable[Tree]) -> Iterator[Tree]:
    """Hazan, Levy & Shalev-Shwartz, 2015, "Beyond convexity", algorithm 1."""
    yield from normalize_by_update_norm(p, grads, eps=0.0)


def normalize_by_update_norm(
    p: Tree,
    grads: Iterable[Tree],
    *,
    scale_factor: Scalar = 1.0,
    eps: Scalar = 1e-6,
) -> Iterator[Tree]:
    """All arrays of a dict together get one norm, ``scale_factor``."""
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        norm = np.sqrt(sum(_size(x) ** 2 for x in g.values()))
        factor = at(scale_factor, t) / (norm + at(eps, t))
        yield {name: factor * x for name, x in g.items()}


def scale_by_param_block_norm(
    p: Array, grads: Iterable[Array], *, min_scale: Scalar = 1e-3
) -> Iterator[Array]:
    """No paper: the size of the parameters is the size of their learning rate."""
    p = double(p)
    for t, g in steps(grads):
        yield g * max(_size(p), at(min_scale, t))


def scale_by_param_block_rms(
    p: Array, grads: Iterable[Array], *, min_scale: Scalar = 1e-3
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 8 (relative step size)."""
    p = double(p)
    for t, g in steps(grads):
        rms = np.sqrt(np.mean(np.abs(p) ** 2)) if p.size else 0.0
        yield g * max(rms, at(min_scale, t))
