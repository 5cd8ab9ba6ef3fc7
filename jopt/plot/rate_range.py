"""``range_test``: the loss over the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from jopt.plot import style
from jopt.values.arguments import abbreviated


def range_test(result: Any, *, ax: Any = None, width: float = 3.5) -> Any:
    """Draw a learning rate range test, with its suggestion or why there is none.

    Args:
      result: The result of `jopt.lr_range_test`.
      ax: Axes of matplotlib to draw on; None makes a figure.
      width: The width of that figure in inches.

    Returns:
      The Axes.

    Raises:
      TypeError: ``result`` is something else.
      ImportError: matplotlib is not installed.

    >>> import jopt, jax.numpy as jnp
    >>> def loss_fn(w, x):
    ...     return jnp.mean((w - x) ** 2)
    >>> result = jopt.lr_range_test(
    ...     jopt.sgd(1.0), loss_fn, jnp.ones(()), jnp.zeros((1, 1)), steps=50
    ... )
    >>> ax = jopt.plot.range_test(result)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('learning rate', 'loss')
    """
    wanted = ("rates", "losses", "smoothed", "suggestion", "reason")
    if not all(hasattr(result, name) for name in wanted):
        raise TypeError(
            "range_test draws the result of jopt.lr_range_test, got "
            f"{abbreviated(result)}"
        )
    suggestion = result.suggestion
    text = result.reason if suggestion is None else f"suggestion {suggestion:.2g}"
    if suggestion is None and not text.startswith("no suggestion"):
        text = f"no suggestion: {text}"
    legend = style.Legend([text], ax, width)
    with style.canvas(ax, width, [0.6 * min(width, 4.5)], legend.lines) as (ax,):
        look = style.line_style(0)
        rates, losses = np.asarray(result.rates), np.asarray(result.losses)
        smoothed = np.asarray(result.smoothed)
        ax.plot(rates, losses, ".", color=look["color"], alpha=0.35, ms=3, mew=0)
        ax.plot(rates, smoothed, **look)
        if suggestion is not None:
            ax.axvline(suggestion, color=style.COLOURS[1], linestyle="--", linewidth=1)
            at = np.interp(np.log(suggestion), np.log(rates), smoothed)
            ax.plot([suggestion], [at], "o", color=style.COLOURS[1], ms=4.5)
        ax.set_xscale("log")
        ax.set_xlim(rates[0], rates[-1])
        style.plain_numbers(ax.yaxis)
        limits = _limits(losses, smoothed)
        if limits:
            ax.set_ylim(*limits)
        else:
            ax.set_yticks([])
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.set_title(legend.labels[0], loc="left", color=style.GREY, fontsize="medium")
    return ax


def _limits(losses: np.ndarray, smoothed: np.ndarray) -> tuple[float, float] | None:
    """All that is below the first losses, and a little above: not how it diverges."""
    known = losses[np.isfinite(losses)]
    if not len(known):
        return None
    usual = smoothed[np.isfinite(smoothed)]
    usual = usual if len(usual) else known
    low, start = min(known.min(), usual.min()), known[: max(1, len(known) // 4)]
    high = min(known.max(), max(start.max(), usual[0]) + 0.35 * (start.max() - low))
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin
