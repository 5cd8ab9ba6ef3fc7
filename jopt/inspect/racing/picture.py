"""The picture of a race: learning curves, and the metric over the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jopt.plot import style


if TYPE_CHECKING:
    from jopt.inspect.racing.result import RaceResult


def drawn(result: RaceResult) -> Any:
    """Return matplotlib's figure of a `RaceResult`."""
    with style.canvas(None, 7, [3.3]) as (ax,):
        figure = ax.figure
        figure.clear()
        left, right = figure.subplots(1, 2, sharey=True)
        for i, entry in enumerate(result.entries):
            look = style.line_style(i)
            _band(left, entry.steps, entry.curve.T, look, entry.name)
            _band(right, entry.rates, entry.validation, look)
            chosen = np.flatnonzero(entry.rates == entry.rate)
            mean = entry.validation[chosen].mean()
            right.plot(entry.rate, mean, "o", color=look["color"])
        low, high = _limits(result)
        if low > 0 and not result.higher_is_better:
            style.logarithmic(left.yaxis, np.array([low, high]))
        left.set_ylim(low, high)
        worst = 0.0 if result.higher_is_better else 1.0
        for i, entry in enumerate(result.entries):
            lost = entry.rates[np.isnan(entry.validation).any(1)]
            # At the edge of the picture, which is worse than everything in it.
            right.plot(
                lost,
                np.full(len(lost), worst),
                "x",
                color=style.line_style(i)["color"],
                transform=right.get_xaxis_transform(),
                clip_on=False,
                in_layout=False,
            )
        rates = np.concatenate([entry.rates for entry in result.entries])
        means = np.concatenate([e.validation.mean(1) for e in result.entries])
        shown = rates[(low < means) & (means < high)]
        if len(shown):
            span = shown.min() / result.factor, shown.max() * result.factor
            right.set_xlim(*span)
        left.set(xlabel="step", ylabel=f"{result.metric}, validation", xlim=(0, None))
        left.set_title("at the chosen rates", loc="left")
        right.set(xlabel="learning rate", xscale="log")
        right.set_title("at the end (dot: chosen, cross: diverged)", loc="left")
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(f"{result.task}: mean and range over {result.seeds} seeds")
    return figure


def _band(
    ax: Any, x: np.ndarray, ys: np.ndarray, look: Mapping[str, Any], label: str = ""
) -> None:
    """The mean over seeds as a line, and their range as a band around it."""
    ax.plot(x, ys.mean(1), label=label or None, **look)
    ax.fill_between(x, ys.min(1), ys.max(1), color=look["color"], alpha=0.15, lw=0)


def _limits(result: RaceResult) -> tuple[float, float]:
    """The range of the metric from a quarter of the runs on, with a margin."""
    shown = np.concatenate(
        [
            entry.curve[:, len(entry.steps) // 4 :].ravel()
            for entry in result.entries
            if not np.isnan(entry.curve).any()
        ]
        or [np.zeros(1)]
    )
    low, high = shown.min(), shown.max()
    if low > 0 and not result.higher_is_better:
        margin = (high / low) ** 0.05 or 1.0
        return float(low / margin), float(high * margin)
    margin = 0.05 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
