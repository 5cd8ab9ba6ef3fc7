"""``run`` and ``update_ratios``: what a run logged, over its steps."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jopt.plot import history as numbers_of_run
from jopt.plot import style
from jopt.plot.history import Series
from jopt.values.arguments import abbreviated


class Panel(NamedTuple):
    """Numbers that share an axis."""

    label: str
    names: tuple[str, ...]
    smooth: bool = False
    log: bool = False


_NORMS = ("gradient_norm", "update_norm", "param_norm")
_RATES = ("learning_rate", "effective_learning_rate")
_SKIPPED = ("total_notfinite", "total_skipped")
_WINDOWS = 40  # means over a fortieth of the run are smooth and still show its course
_LEGEND = 12  # lines that a legend can explain


def run(
    history: Any,
    panels: Sequence[str | Sequence[str]] | None = None,
    *,
    ax: Any = None,
    width: float = 3.5,
) -> np.ndarray:
    """Draw a run from the numbers that it logged, one panel below the other.

    The panels are losses, learning rates, norms, the clip factor and skipped steps,
    with the names that `jopt.metrics` gives; a panel without numbers is left out. A
    loss is drawn light, and dark as its mean over a fortieth of the steps. Crosses mark
    where a number is not finite.

    Args:
      history: A list of dicts, one a step; a dict of lists; the path of a CSV file or
        of JSON lines; or a `jopt.logs.Memory`. ``"step"`` is the step; without it,
        steps count from 0.
      panels: The names to draw instead: for each panel a name or a list of names.
      ax: As many Axes of matplotlib as there are panels, to draw on; None makes a
        figure.
      width: The width of that figure in inches.

    Returns:
      An array of the Axes.

    Raises:
      KeyError: The history lacks a name in ``panels``. The message lists the names that
        it has.
      ValueError: The history is empty or has nothing for a panel, or ``ax`` has another
        number of Axes than there are panels.
      TypeError: ``history`` is something else.
      ImportError: matplotlib is not installed.

    >>> import jopt
    >>> history = [{"step": i, "loss": 1 / (i + 1), "learning_rate": 0.1}
    ...            for i in range(100)]
    >>> [ax.get_ylabel() for ax in jopt.plot.run(history)]
    ['loss', 'learning rate']
    """
    numbers = numbers_of_run.read(history)
    if panels is None:
        shown = _found(numbers)
        if not shown:
            raise ValueError(
                "the history has no loss, learning_rate, norm, clip_factor or skipped "
                f"steps, but {sorted(numbers)}. Name what to draw: "
                f"panels={[min(numbers)]}"
            )
    else:
        shown = [_panel(x, numbers) for x in panels]
        if not shown:
            raise ValueError("panels must be one or more names, got none")
    gaps = [
        any(not np.isfinite(numbers[name].values).all() for name in x.names)
        for x in shown
    ]
    legends = [
        style.Legend([*x.names, *["not finite"] * gap], ax, width)
        for x, gap in zip(shown, gaps, strict=True)
    ]
    several = [len(legend.labels) > 1 for legend in legends]
    heights = [
        1.05 + 0.15 * legend.lines * more
        for legend, more in zip(legends, several, strict=True)
    ]
    heights[0] += 0.35
    with style.canvas(ax, width, heights) as axes:
        for ax, panel, legend, more in zip(axes, shown, legends, several, strict=True):
            for i, name in enumerate(panel.names):
                _draw(ax, numbers[name], panel, legend.labels[i], i)
            ax.set_ylabel(panel.label)
            _set_scale(ax, panel, [numbers[name].values for name in panel.names])
            if more:
                legend.draw(ax)
        steps = np.concatenate(
            [numbers[x].steps for panel in shown for x in panel.names]
        )
        first, last = steps.min(), steps.max()
        for ax in axes:
            ax.set_xlim(first, last) if last > first else ax.margins(x=0.5)
        axes[-1].set_xlabel("step")
        axes[0].figure.align_ylabels(axes)
    return np.array(axes, object)


def _found(numbers: dict[str, Series]) -> list[Panel]:
    """The panels for which there are numbers."""

    def ending(*names):
        ends = tuple(f"/{x}" for x in names)
        return tuple(x for x in numbers if x in names or x.endswith(ends))

    losses = tuple(
        x for x in numbers if "loss" in x.lower() and not x.endswith("loss_scale")
    )
    panels = [
        Panel("loss", losses, smooth=True),
        Panel("learning rate", ending(*_RATES)),
        Panel("norm", ending(*_NORMS), log=True),
        Panel("clip factor", ending("clip_factor")),
        Panel("skipped steps", ending(*_SKIPPED)),
    ]
    return [panel for panel in panels if panel.names]


def _panel(names: Any, numbers: dict[str, Series]) -> Panel:
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"panels must be names, got {abbreviated(name)}")
        numbers_of_run.of_name(numbers, name)
    if not names:
        raise ValueError("a panel must have one or more names, got none")
    known = [x for x in _found(numbers) if set(names) <= set(x.names)]
    if known:
        return known[0]._replace(names=names)
    return Panel(names[0] if len(names) == 1 else "value", names)


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the values around each, without those that are not finite.

    >>> smoothed(np.array([0.0, 3.0, np.nan, 5.0]), 3)
    array([1.5, 1.5, 4. , 5. ])
    """
    there = np.isfinite(values)
    ones = np.ones(window)
    sums = np.convolve(np.where(there, values, 0.0), ones, "same")
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / np.convolve(there.astype(float), ones, "same")


def _draw(ax: Any, series: Series, panel: Panel, label: str, i: int) -> None:
    look, values = style.line_style(i), series.values
    there = np.isfinite(values)
    steps, drawn = series.steps[there], values[there]
    marker = "o" if len(drawn) == 1 else None
    window = len(values) // _WINDOWS // 2 * 2 + 1
    if panel.smooth and window > 1:
        light = {"color": look["color"], "alpha": 0.3, "linewidth": 0.6}
        ax.plot(steps, drawn, zorder=2, **light)
        ax.plot(steps, smoothed(drawn, window), label=label, zorder=3, **look)
    else:
        ax.plot(steps, drawn, label=label, zorder=3, marker=marker, ms=3.5, **look)
    if not there.all():
        ax.plot(
            series.steps[~there],
            np.full(np.sum(~there), 0.04 + 0.08 * i),
            "x",
            color=look["color"],
            ms=3.5,
            mew=0.8,
            transform=ax.get_xaxis_transform(),
            label="_" if "not finite" in _labels(ax) else "not finite",
            zorder=4,
        )


def _labels(ax: Any) -> list[str]:
    return [line.get_label() for line in ax.get_lines()]


def _set_scale(ax: Any, panel: Panel, values: Sequence[np.ndarray]) -> None:
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    if not len(known):
        return
    positive = known[known > 0]
    falls = len(known) == len(positive) and np.quantile(known, 0.98) > 20 * known.min()
    if (panel.log and len(positive)) or (panel.smooth and falls):
        style.logarithmic(ax.yaxis, known)
        return
    style.plain_numbers(ax.yaxis)
    top = known.max()
    if panel.label == "skipped steps":
        ax.yaxis.get_major_locator().set_params(integer=True)
    from_zero = panel.label == "clip factor" or known.min() < 0.5 * top or top == 0
    if known.min() >= 0 and from_zero:
        ax.set_ylim(-0.03 * (top or 1), 1.08 * (top or 1))
    elif math.isclose(known.min(), top):
        ax.set_ylim(top - 0.5 * abs(top), top + 0.5 * abs(top))


def update_ratios(history: Any, *, ax: Any = None, width: float = 3.5) -> Any:
    """Draw the update-to-weight ratio of each layer over the steps of a run.

    The ratio is ``|update| / |parameters|``. About 1e-3, the dotted line, is usual at
    the peak of a learning rate: a layer far above it forgets, one far below hardly
    learns.
    `jopt.monitor` measures it, with ``groups`` for each group of leaves.

    Args:
      history: See `run`; its names are ``update_ratio`` and ``update_ratio/group``.
      ax: Axes of matplotlib to draw on; None makes a figure.
      width: The width of that figure in inches.

    Returns:
      The Axes. Up to twelve lines have a legend; more go from dark to light in the
      order of their names, with a scale beside.

    Raises:
      ValueError: The history is empty, or has no update ratios above 0.
      TypeError: ``history`` is something else.
      ImportError: matplotlib is not installed.

    >>> import jopt
    >>> ax = jopt.plot.update_ratios({"update_ratio/kernel": [2e-3, 1e-3]})
    >>> ax.get_lines()[0].get_label()
    'kernel'
    """
    numbers = numbers_of_run.read(history)
    ratios = _ratios(numbers)
    # A layer that is frozen has the ratio 0, which a logarithmic axis does not show.
    ratios = {
        name: Series(x.steps[x.values > 0], x.values[x.values > 0])
        for name, x in ratios.items()
        if np.any(x.values > 0)
    }
    if not ratios:
        raise ValueError(
            "the history has no update_ratio above 0. Put jopt.monitor(groups=…) at "
            "the end of the chain, or jopt.monitor(tx, groups=…) around it, and log "
            f"jopt.metrics(state). It has {sorted(numbers)}"
        )
    many = len(ratios) > _LEGEND
    legend = style.Legend(ratios, ax, width)
    lines = 0 if many else legend.lines
    with style.canvas(ax, width, [0.6 * min(width, 4.5)], lines) as (ax,):
        colours = style.library().get_cmap("viridis")(np.linspace(0, 0.92, len(ratios)))
        for i, (name, x) in enumerate(ratios.items()):
            look: dict[str, Any] = style.line_style(i)
            if many:
                look = {"color": colours[i], "linewidth": 0.8}
            marker = "o" if len(x.steps) == 1 else None
            label = name if many else legend.labels[i]
            ax.plot(*x, label=label, marker=marker, ms=3.5, zorder=3, **look)
        ax.axhline(1e-3, color=style.GREY, linestyle=":", linewidth=0.9, zorder=4)
        style.logarithmic(ax.yaxis, np.concatenate([x.values for x in ratios.values()]))
        ax.set_xlabel("step")
        ax.set_ylabel("|update| / |parameters|")
        steps = np.concatenate([x.steps for x in ratios.values()])
        ax.set_xlim(steps.min(), steps.max()) if np.ptp(steps) else ax.margins(x=0.5)
        if many:
            _scale_of_names(ax, list(ratios), colours)
        else:
            legend.draw(ax)
    return ax


def _ratios(numbers: dict[str, Series]) -> dict[str, Series]:
    """The ratios by group; by path where several monitors have a group of this name."""
    parts = {
        name: name.partition("update_ratio")
        for name in numbers
        if "update_ratio" in name.split("/")
    }
    groups = {name: after.strip("/") or "all" for name, (_, _, after) in parts.items()}
    times = collections.Counter(groups.values())
    return {
        groups[name]
        if times[groups[name]] == 1
        else f"{before}{after.strip('/')}".strip("/") or "all": numbers[name]
        for name, (before, _, after) in parts.items()
    }


def _scale_of_names(ax: Any, names: Sequence[str], colours: Any) -> None:
    """A scale of colours beside the Axes, with up to eight of the names."""
    colors = style.library("colors")
    mappable = style.library("cm").ScalarMappable(
        colors.BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names)),
        colors.ListedColormap(colours),
    )
    ticks = np.unique(np.linspace(0, len(names) - 1, 8).round().astype(int))
    bar = ax.figure.colorbar(mappable, ax=ax, ticks=ticks, pad=0.02, aspect=30)
    bar.ax.set_yticklabels([names[i][-24:] for i in ticks])
    bar.ax.tick_params(which="both", length=0)
    bar.outline.set_visible(False)
