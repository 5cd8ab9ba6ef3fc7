"""What all twins need: double precision, counted steps, numbers that may change."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


Array = npt.NDArray[Any]
Scalar = float | Callable[[int], Any]
EpsMode = Literal["after", "before"]


def double(x: Array) -> Array:
    """``x`` in double precision, real or complex."""
    dtype = np.promote_types(np.asarray(x).dtype, np.float64)
    return np.asarray(x, dtype)


def steps(grads: Iterable[Array]) -> Iterator[tuple[int, Array]]:
    """Yields the pairs ``(t, g_t)``, from ``t = 1``."""
    for t, g in enumerate(grads, start=1):
        yield t, double(g)


def at(scalar: Scalar, t: int) -> float:
    """The value of a hyperparameter in step ``t``."""
    return float(scalar(t - 1) if callable(scalar) else scalar)


def denominator(
    v_hat: Array, correction: float, eps: float, eps_root: float, eps_mode: EpsMode
) -> Array:
    """Adam's ``sqrt(v_hat + eps_root) + eps``, where ``v_hat = v / correction``.

    "before" adds both constants before that division, to ``v`` and to ``sqrt(v)``.
    """
    if eps_mode == "before":
        eps_root = eps_root / correction
        eps = eps / np.sqrt(correction)
    return np.sqrt(v_hat + eps_root) + eps
