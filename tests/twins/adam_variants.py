"""Relatives of Adam."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .base import Array, EpsMode, Scalar, at, denominator, double, steps


def adamaxw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    eps_in_max: bool = True,
) -> Iterator[Array]:
    """Kingma & Ba, 2015, "Adam", algorithm 2, with AdamW's weight decay."""
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
        p = p - at(learning_rate, t) * (d + at(weight_decay, t) * p)
        yield p


def nadamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    momentum_decay: Scalar | None = None,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Dozat, 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.

    With AdamW's weight decay. Momentum is ``b1``, or rises to it.
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
        p = p - at(learning_rate, t) * (m_hat / root + at(weight_decay, t) * p)
        yield p


def adabelief(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
) -> Iterator[Array]:
    """Zhuang et al., 2020, "AdaBelief optimizer", algorithm 2.

    Its epsilon is both of ours.
    """
    p = double(p)
    m = np.zeros_like(p)
    s = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * np.abs(g - m) ** 2 + at(eps_root, t)
        m_hat = m / (1 - beta1**t)
        s_hat = s / (1 - beta2**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        u = m_hat / (np.sqrt(s_hat) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def acprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zhuang et al., 2021, "Momentum centering and asynchronous update".

    The first step, which has no ``s`` to divide by, is the gradient.
    """
    p = double(p)
    m = np.zeros_like(p)
    s = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        if t == 1:
            u = g
        else:
            s_hat = s / (1 - beta2 ** (t - 1))
            u = g / (np.sqrt(s_hat) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        s = beta2 * s + (1 - beta2) * np.abs(g - m) ** 2 + at(eps_root, t)
        yield p


def yogi(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: float = 1e-6,
    initial_mu: float = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Zaheer et al., 2018, "Adaptive methods for nonconvex optimization", algorithm 2.

    With Adam's bias corrections, which the paper leaves out.
    """
    p = double(p)
    m = np.zeros_like(p) + initial_mu
    v = np.full(p.shape, initial_accumulator_value)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        g2 = np.abs(g) ** 2
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * np.sign(v - g2) * g2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


def radam(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Liu et al., 2020, "On the variance of the adaptive learning rate and beyond".

    Algorithm 2, in which the threshold is 4.
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
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length >= at(threshold, t):
            r = np.sqrt(
                ((length - 4) * (length - 2) * longest)
                / ((longest - 4) * (longest - 2) * length)
            )
            correction, e, e_root = 1 - beta2**t, at(eps, t), at(eps_root, t)
            u = r * m_hat / denominator(v_hat, correction, e, e_root, eps_mode)
        else:
            u = m_hat
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def laprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-15,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Ziyin, Wang & Ueda, 2020, "LaProp", algorithm 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        correction = 1 - beta2**t
        e, e_root = at(eps, t), at(eps_root, t)
        root = denominator(v / correction, correction, e, e_root, eps_mode)
        m = beta1 * m + (1 - beta1) * g / root
        u = m / (1 - beta1**t)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def adan(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    no_prox: bool = False,
) -> Iterator[Array]:
    """Xie et al., 2022, "Adan: adaptive Nesterov momentum algorithm", algorithm 1.

    The paper's betas are one minus these. Bias corrections as in its authors' code.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros_like(p)
    n = np.zeros(p.shape)
    g_before = None
    for t, g in steps(grads):
        beta1, beta2, beta3 = 1 - at(b1, t), 1 - at(b2, t), 1 - at(b3, t)
        d = g - g if g_before is None else g - g_before
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * d
        n = (1 - beta3) * n + beta3 * np.abs(g + (1 - beta2) * d) ** 2
        m_hat = m / (1 - (1 - beta1) ** t)
        v_hat = v / (1 - (1 - beta2) ** t)
        n_hat = n / (1 - (1 - beta3) ** t)
        eta = at(learning_rate, t) / (np.sqrt(n_hat + at(eps_root, t)) + at(eps, t))
        step = eta * (m_hat + (1 - beta2) * v_hat)
        shrinkage = at(learning_rate, t) * at(weight_decay, t)
        p = (1 - shrinkage) * p - step if no_prox else (p - step) / (1 + shrinkage)
        g_before = g
        yield p


def proximal_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Zhuang et al., 2022, "Understanding AdamW through proximal methods".

    The new parameters minimize ``lr * weight_decay * |x|**2 + |x - (p - lr * g)|**2``.
    """
    p = double(p)
    for t, g in steps(grads):
        lr = at(learning_rate, t)
        yield (p - lr * g) / (1 + lr * at(weight_decay, t)) - p


def adopt(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[int], float] = lambda n: n**0.25,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Taniguchi et al., 2024, "ADOPT", with the clipping of its authors' code.

    The first gradient is for ``v`` only.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        if t == 1:
            v = np.abs(g) ** 2
            yield p
            continue
        normed = g / np.maximum(np.sqrt(v), at(eps, t))
        if use_clipping:
            c = clip_value_fn(t - 1)
            normed = np.minimum(np.maximum(normed, -c), c)
        m = beta1 * m + (1 - beta1) * normed
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        u = beta1 * m + (1 - beta1) * normed if nesterov else m
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def skip_first(p: Array, grads: Iterable[Array], *, steps: int = 1) -> Iterator[Array]:
    """No paper: zero in the first steps."""
    for t, g in enumerate(grads, start=1):
        yield np.zeros_like(double(g)) if t <= steps else double(g)


def ademamix(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    alpha: Scalar = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
) -> Iterator[Array]:
    """Pagliardini, Ablin & Grangier, 2024, "The AdEMAMix optimizer", algorithm 1.

    The schedule of ``b3`` is the paper's f, linear in the half-life.
    """
    p = double(p)
    m1 = np.zeros_like(p)
    m2 = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2, beta3 = at(b1, t), at(b2, t), at(b3, t)
        a = at(alpha, t)
        if alpha_warmup is not None:
            a = min(t * a / alpha_warmup, a)
        if b3_warmup is not None and t < b3_warmup:
            start, end, share = np.log(beta1), np.log(beta3), t / b3_warmup
            beta3 = np.exp(start * end / ((1 - share) * end + share * start))
        m1 = beta1 * m1 + (1 - beta1) * g
        m2 = beta3 * m2 + (1 - beta3) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m1_hat = m1 / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = (m1_hat + a * m2) / (np.sqrt(v_hat + at(eps_root, t)) + at(eps, t))
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def simplified_ademamix(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Morwani et al., 2025, "Connections between schedule-free optimizers, AdEMAMix".

    And accelerated SGD variants; its algorithm for simplified AdEMAMix.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        v_hat = v / (1 - beta2**t)
        root = np.sqrt(v_hat + at(eps_root, t)) + at(eps, t)
        u = (m + at(alpha, t) * g) / root
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p
