"""``trajectories``: the ways of optimizers on functions of two numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.plot import style
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion


class Surface(NamedTuple):
    """A function of two numbers, where to start, and where its minima are."""

    f: Callable[[jax.Array], Any]
    start: tuple[float, float]
    view: tuple[float, float, float, float] | None  # left, right, bottom, top
    minima: tuple[tuple[float, float], ...]


def _rosenbrock(p: jax.Array) -> jax.Array:
    x, y = p
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _beale(p: jax.Array) -> jax.Array:
    x, y = p
    terms = ((1.5, 1), (2.25, 2), (2.625, 3))
    return sum((c - x * (1 - y**k)) ** 2 for c, k in terms)  # type: ignore[return-value]


def _himmelblau(p: jax.Array) -> jax.Array:
    x, y = p
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _rastrigin(p: jax.Array) -> jax.Array:
    return 20 + jnp.sum(p**2 - 10 * jnp.cos(2 * math.pi * p))


def _quadratic(p: jax.Array) -> jax.Array:
    x, y = p
    return 0.5 * (x**2 + 50 * y**2)


def _saddle(p: jax.Array) -> jax.Array:
    x, y = p
    return x**2 - y**2 + y**4 / 4


SURFACES = {
    "rosenbrock": Surface(_rosenbrock, (-1.2, 1.0), (-2, 2, -1, 3), ((1, 1),)),
    "beale": Surface(_beale, (1.0, 1.5), (-0.5, 4, -1, 2), ((3, 0.5),)),
    "himmelblau": Surface(
        _himmelblau,
        (-0.5, -1.0),
        (-5, 5, -5, 5),
        ((3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848127)),
    ),
    "rastrigin": Surface(_rastrigin, (3.2, -2.3), (-4, 4, -4, 4), ((0, 0),)),
    "quadratic": Surface(_quadratic, (-8.0, 1.0), (-10, 10, -2, 2), ((0, 0),)),
    "saddle": Surface(
        _saddle,
        (1.5, 0.02),
        (-2, 2, -2.2, 2.2),
        ((0, -math.sqrt(2)), (0, math.sqrt(2))),
    ),
}


def trajectories(
    *optimizers: Any,
    function: str | Callable[[jax.Array], Any] = "rosenbrock",
    start: Sequence[float] | None = None,
    steps: int = 200,
    ax: Any = None,
    width: float = 3.5,
) -> Any:
    """Draw the ways of optimizers on a function of two numbers.

    The contours are equally far apart in the logarithm of the height above the lowest
    point. A black dot is the start, stars are the minima, and a marker shows where an
    optimizer is after the last step.

    Args:
      *optimizers: Optimizers, each with its ``repr`` as label, or dicts of them by
        label.
      function: ``"rosenbrock"``, ``"beale"``, ``"himmelblau"``, ``"rastrigin"``,
        ``"quadratic"`` (of condition 50) or ``"saddle"``; or a function of an array of
        two numbers.
      start: The first point, two numbers. None means the usual one of a function with
        a name.
      steps: The number of steps, >= 1.
      ax: Axes of matplotlib to draw on; None makes a figure.
      width: The width of that figure in inches.

    Returns:
      The Axes. The data of a line of an optimizer's label are its points.

    Raises:
      ValueError: There is no optimizer, two labels are the same, ``steps`` is below 1,
        no function has this name, or a function of your own has no ``start``.
      TypeError: Something is not an optimizer, or ``start`` is not two numbers, or the
        function does not return one.
      ImportError: matplotlib is not installed.

    >>> import jopt
    >>> ax = jopt.plot.trajectories(
    ...     {"SGD": jopt.sgd(0.03), "Adam": jopt.adam(0.3)}, function="quadratic"
    ... )
    >>> [line.get_label() for line in ax.get_lines()][:2]
    ['SGD', 'Adam']
    """
    chosen = style.named("optimizers", optimizers, lambda x: isinstance(x, tuple))
    txs = {
        name: as_transformation(tx, f"optimizers[{name!r}]")
        for name, tx in chosen.items()
    }
    arguments.at_least(1, steps=arguments.whole("steps", steps))
    surface = _surface(function, start)
    begin = jnp.asarray(surface.start, float)
    paths = {
        name: np.asarray(_path(tx, surface.f, int(steps), begin))
        for name, tx in txs.items()
    }
    view = _view(surface, list(paths.values()))
    legend = style.Legend(paths, ax, width)
    with style.canvas(ax, width, [0.8 * min(width, 4.5)], legend.lines) as (ax,):
        _contours(ax, surface.f, view)
        for i, path in enumerate(paths.values()):
            x, y = path.T
            last = np.flatnonzero(np.isfinite(path).all(1))[-1]
            ax.plot(
                x,
                y,
                label=legend.labels[i],
                marker=style.MARKERS[i % len(style.MARKERS)],
                markevery=[last],
                ms=6,
                mec="white",
                mew=0.7,
                zorder=3,
                **style.line_style(i),
            )
        ax.plot(*surface.start, "o", color="black", ms=4.5, zorder=6, label="_start")
        for minimum in surface.minima:
            star = {"mfc": "white", "mec": "black", "mew": 0.8, "ms": 9}
            ax.plot(*minimum, "*", zorder=4, label="_minimum", **star)
        ax.set_xlim(*view[:2])
        ax.set_ylim(*view[2:])
        ax.set_xlabel("$x$")
        ax.set_ylabel("$y$")
        legend.draw(ax)
    return ax


def _surface(function: Any, start: Any) -> Surface:
    if isinstance(function, str):
        if function not in SURFACES:
            raise ValueError(
                f"no function has the name {function!r}."
                f"{suggestion(function, SURFACES)} There are {sorted(SURFACES)}, and "
                "any function of an array of two numbers"
            )
        surface = SURFACES[function]
    elif callable(function):
        if start is None:
            raise ValueError("start must be given for a function of your own")
        surface = Surface(function, (0.0, 0.0), None, ())
    else:
        raise TypeError(
            "function must be a name or a function of an array of two numbers, got "
            f"{abbreviated(function)}"
        )
    if start is not None:
        point = np.asarray(start)
        if point.shape != (2,) or not arguments.is_real(point.dtype):
            raise TypeError(
                f"start must be two numbers, got start={abbreviated(start)}"
            )
        surface = surface._replace(start=(float(point[0]), float(point[1])))
    value = jax.eval_shape(surface.f, jnp.asarray(surface.start, float))
    arguments.one_number("what function returns", value, jnp.floating)
    return surface


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _path(tx: Any, f: Callable[..., Any], steps: int, start: jax.Array) -> jax.Array:
    """The points from the start on."""

    def step(carry, _):
        point, state = carry
        value, grad = jax.value_and_grad(f)(point)
        updates, state = tx.update(
            grad, state, point, value=value, grad=grad, value_fn=f
        )
        point = apply_updates(point, updates)
        return (point, state), point

    _, points = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return jnp.concatenate([start[None], points])


def _view(
    surface: Surface, paths: Sequence[np.ndarray]
) -> tuple[float, float, float, float]:
    """The usual part of the plane, with the paths as far as they stay near it."""
    start = np.array(surface.start)
    points = np.concatenate(paths)
    points = points[np.isfinite(points).all(1)]
    if surface.view is None:  # as far as the shortest path, thrice
        far = min(_distances(path, start) for path in paths)
        points = points[np.abs(points - start).max(1) <= 3 * far]
        low, high = points.min(0), points.max(0)
        margin = 0.15 * max(*(high - low), 1e-3)
    else:
        left, right, bottom, top = surface.view
        low, high = np.array([left, bottom]), np.array([right, top])
        margin = 0.02 * (high - low)
        near = np.abs(points - (low + high) / 2) <= 0.75 * (high - low)
        points = np.concatenate([points[near.all(1)], [start]])
        inside = (points >= low) & (points <= high)
        if inside.all():
            return surface.view
        low = np.minimum(low, points.min(0) - margin)
        high = np.maximum(high, points.max(0) + margin)
        margin = 0.0
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)


def _distances(path: np.ndarray, start: np.ndarray) -> float:
    """How far a path goes, but for its last tenth if that goes on to infinity."""
    finite = path[np.isfinite(path).all(1)]
    return float(np.quantile(np.abs(finite - start).max(1), 0.9))


def _contours(
    ax: Any, f: Callable[..., Any], view: tuple[float, float, float, float]
) -> None:
    """Contours in the logarithm of the height above the lowest point, in greys."""
    x, y = np.meshgrid(np.linspace(*view[:2], 160), np.linspace(*view[2:], 160))
    points = jnp.asarray(np.stack([x.ravel(), y.ravel()], 1), float)
    z = np.asarray(jax.jit(jax.vmap(f))(points), float).reshape(x.shape)
    if not np.isfinite(z).any():
        return
    z = np.where(np.isfinite(z), z, np.nan)
    height = z - np.nanmin(z)
    top = np.nanmax(height)
    if not top > 0:  # a flat function has no contours
        return
    log = np.log10(np.maximum(height, 1e-4 * top))
    levels = np.linspace(-4 + np.log10(top), np.log10(top), 14)
    ax.contourf(x, y, log, levels=levels, cmap="Greys_r", vmin=levels[0] - 12, zorder=0)
    lines = {"colors": "0.75", "linewidths": 0.4, "linestyles": "solid"}
    ax.contour(x, y, log, levels=levels, zorder=1, **lines)
