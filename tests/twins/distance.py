"""Without a learning rate: it follows from the distance.

What looks at all leaves takes dicts: their norms and products are those of one long
vector.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .base import Array, Scalar, at, double, steps


Tree = dict[str, Array]


def dog(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Tree]:
    """Ivgi, Hinder & Carmon, 2023, "DoG is SGD's best friend", equation DoG.

    ``eps`` and the decay are those of the authors' code.
    """
    x0 = x = {n: double(p) for n, p in params.items()}
    kind, value = init_step
    r = {
        "distance": value,
        "heuristic": value * (1 + np.linalg.norm(_vector(x0))),
        "learning_rate": 0.0,
    }[kind]
    total = 0.0
    for t, g in enumerate(grads, start=1):
        g = {n: double(g[n]) + weight_decay * x[n] for n in x}
        r = max(r, np.linalg.norm(_vector(x) - _vector(x0)))
        total += np.linalg.norm(_vector(g)) ** 2
        eta = at(learning_rate, t) * r / np.sqrt(total + eps)
        if kind == "learning_rate" and t == 1:
            eta = at(learning_rate, t) * value
        new = {n: x[n] - eta * g[n] for n in x}
        x = new if moves else x
        yield new


def scale_by_dog(params: Tree, grads: Iterable[Tree], **options: Any) -> Iterator[Tree]:
    """At rate -1, and parameters that stay where they are."""
    for new in dog(params, grads, learning_rate=-1.0, moves=False, **options):
        yield {n: new[n] - double(params[n]) for n in new}


def ldog(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    reps_rel: float = 1e-6,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Array]:
    """The same paper: each layer on its own."""
    start = ("heuristic", reps_rel)
    options: dict[str, Any] = {"learning_rate": learning_rate, "init_step": start}
    options |= {"eps": eps, "weight_decay": weight_decay, "moves": moves}
    for x in dog({"": p}, ({"": g} for g in grads), **options):
        yield x[""]


def scale_by_distance_over_gradients(
    p: Array, grads: Iterable[Array], *, global_scale: float = 1.0, **options: Any
) -> Iterator[Array]:
    """At rate -1, and parameters that stay where they are."""
    for x in ldog(p, grads, learning_rate=-global_scale, moves=False, **options):
        yield x - double(p)


def dowg(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Tree]:
    """Khaled, Mishchenko & Jin, 2023, "DoWG unleashed", algorithm 1."""
    x0 = x = {n: double(p) for n, p in params.items()}
    r2 = eps if init_estim_sq_dist is None else init_estim_sq_dist
    v = 0.0
    for t, g in enumerate(grads, start=1):
        g = {n: double(g[n]) + weight_decay * x[n] for n in x}
        r2 = max(r2, np.linalg.norm(_vector(x) - _vector(x0)) ** 2)
        v += r2 * np.linalg.norm(_vector(g)) ** 2
        eta = at(learning_rate, t) * r2 / (np.sqrt(v) + eps)
        new = {n: x[n] - eta * g[n] for n in x}
        x = new if moves else x
        yield new


def scale_by_dowg(
    params: Tree, grads: Iterable[Tree], **options: Any
) -> Iterator[Tree]:
    """At rate -1, and parameters that stay where they are."""
    for new in dowg(params, grads, learning_rate=-1.0, moves=False, **options):
        yield {n: new[n] - double(params[n]) for n in new}


def dadapt_adamw(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: float = 0.0,
    use_bias_correction: bool = False,
    growth_rate: float = np.inf,
) -> Iterator[Tree]:
    """Defazio & Mishchenko, 2023, "Learning-rate-free learning by D-Adaptation".

    Its variant of Adam, with the authors' decay and options.
    """
    like = {n: double(p) for n, p in params.items()}
    p, b1, b2 = _vector(like), *betas
    root = np.sqrt(b2)
    m, v, s = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    d, r = estim_lr0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = _vector({n: double(tree[n]) for n in like})
        step = d * at(learning_rate, t)
        if use_bias_correction:
            step *= np.sqrt(1 - b2**t) / (1 - b1**t)
        r = root * r + (1 - root) * step * np.dot(g, s / (np.sqrt(v) + eps))
        m = b1 * m + (1 - b1) * step * g
        v = b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * step * g
        size = np.sum(np.abs(s))
        found = r / ((1 - root) * size) if size > 0 else 0.0
        p = p - m / (np.sqrt(v) + eps) - step * weight_decay * p
        d = max(d, min(found, d * growth_rate))
        yield _tree(p, like)


def prodigy(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: float = 0.0,
    safeguard_warmup: bool = False,
    use_bias_correction: bool = False,
    growth_rate: float = np.inf,
) -> Iterator[Tree]:
    """Mishchenko & Defazio, 2024, "Prodigy": its Adam, with the authors' options."""
    like = {n: double(p) for n, p in params.items()}
    p, b1, b2 = _vector(like), *betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    p0, m, v, s = p, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    d = d_max = estim_lr0
    r = 0.0
    for t, tree in enumerate(grads, start=1):
        g = _vector({n: double(tree[n]) for n in like})
        step = d * at(learning_rate, t)
        if use_bias_correction:
            step *= np.sqrt(1 - b2**t) / (1 - b1**t)
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + d / estim_lr0 * step * np.dot(g, p0 - p)
        s = b3 * s + d / estim_lr0 * (d if safeguard_warmup else step) * g
        size = np.sum(np.abs(s))
        found = estim_lr_coef * r / size if size > 0 else 0.0
        if d == estim_lr0:
            d = max(d, found)
        d_max = max(d_max, found)
        d = min(d_max, d * growth_rate)
        p = p - step * (m / (np.sqrt(v) + d * eps) + weight_decay * p)
        yield _tree(p, like)


def cocob(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Array]:
    """Orabona & Tommasi, 2017, "Training deep networks without learning rates".

    Algorithm 2, of which the gradients are the negative ones.
    """
    w1 = w = double(p)
    largest, sizes = np.full_like(w, eps), np.zeros_like(w)
    reward, theta = np.zeros_like(w), np.zeros_like(w)
    for t, g in steps(grads):
        g = -at(learning_rate, t) * (g + weight_decay * w)
        largest = np.maximum(largest, np.abs(g))
        sizes = sizes + np.abs(g)
        reward = np.maximum(reward + (w - w1) * g, 0)
        theta = theta + g
        bound = largest * np.maximum(sizes + largest, alpha * largest)
        new = w1 + theta / bound * (largest + reward)
        w = new if moves else w
        yield new


def scale_by_cocob(p: Array, grads: Iterable[Array], **options: Any) -> Iterator[Array]:
    """At rate 1, and parameters that stay where they are."""
    for new in cocob(p, grads, learning_rate=1.0, moves=False, **options):
        yield new - double(p)


def mechanize_momentum(
    params: Tree,
    grads: Iterable[Tree],
    *,
    weight_decay: float = 1e-2,
    eps: float = 1e-8,
    s_init: float = 1e-8,
    num_betas: int = 6,
    store_delta: bool = True,
    moves: bool = True,
) -> Iterator[Tree]:
    """Cutkosky, Defazio & Mehta, 2023, "Mechanic", algorithm 1, of momentum 0.9.

    ``m`` starts at 1e-6, as in the authors' code.
    """
    del store_delta  # here it always is
    like = {n: double(p) for n, p in params.items()}
    x = _vector(like)
    x0, delta, momentum = x, np.zeros_like(x), np.zeros_like(x)
    betas = 1 - 0.1 ** np.arange(1, num_betas + 1)
    m, v = np.full(num_betas, 1e-6), np.zeros(num_betas)
    r, s = np.zeros(num_betas), np.zeros(num_betas)
    for tree in grads:
        g = _vector({n: double(tree[n]) for n in like})
        momentum = 0.9 * momentum + g
        pull = np.sum(s) * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        h = np.vdot(g + weight_decay * pull * x, delta).real
        m = np.maximum(betas * m, np.abs(h))
        v = betas**2 * v + h**2
        r = np.maximum(0, betas * r - s * h)
        s = (s_init / num_betas * m + r) / (np.sqrt(v) + eps)
        delta = delta - momentum
        new = x0 + np.sum(s) * delta
        yield _tree(new if moves else new - x0, like)
        x = new if moves else x


def _vector(tree: Tree) -> Array:
    return np.concatenate([x.ravel() for x in tree.values()])


def _tree(vector: Array, like: Tree) -> Tree:
    tree, start = {}, 0
    for name, x in like.items():
        tree[name] = vector[start : start + x.size].reshape(x.shape)
        start += x.size
    return tree
