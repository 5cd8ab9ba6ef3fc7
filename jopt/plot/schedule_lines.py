"""``schedules``: schedules over steps or epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.changing_numbers import is_traceable, scheduled
from jopt.plot import style
from jopt.plot.phases import Phase, end, phases
from jopt.values import arguments


POINTS = 1500  # more are not visible
DECADES = 5  # of a logarithmic axis below the largest value: a decay to 0 has all
SHOWN = 12  # phases that can be told apart


def schedules(
    *schedules: Callable[[Any], Any] | float | Mapping[str, Any],
    steps: int | None = None,
    steps_per_epoch: float | None = None,
    log: bool = False,
    ax: Any = None,
    width: float = 3.5,
) -> Any:
    """Draw schedules over steps or epochs.

    The phases of a schedule that jopt made are marked. If all schedules have the same
    phases, they are shaded, with their names above; else a dot is where one begins.

    Args:
      *schedules: Functions of the step and numbers, each with its ``repr`` as label, or
        dicts of such by label.
      steps: The number of steps to draw. None means all steps until the last schedule
        has ended, if each has an end.
      steps_per_epoch: The number of steps in an epoch. If given, the horizontal axis
        counts epochs.
      log: Whether the vertical axis is logarithmic. It ends five decades below the
        largest value, and a value of 0 is at its bottom.
      ax: Axes of matplotlib to draw on; None makes a figure.
      width: The width of that figure in inches.

    Returns:
      The Axes.

    Raises:
      ValueError: There is no schedule, the number of steps is not given and cannot be
        known, a number is out of range, two labels are the same, or no value is
        positive on a logarithmic axis.
      TypeError: Something is not a schedule, or a schedule does not return one number.
      ImportError: matplotlib is not installed.

    >>> import jopt
    >>> cosine = jopt.warmup_cosine(1e-3, warmup_steps=100, total_steps=1000)
    >>> ax = jopt.plot.schedules({"cosine": cosine, "constant": 1e-3})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['cosine', 'constant']
    """
    chosen = style.named("schedules", schedules, _is_schedule)
    for name, x in chosen.items():
        if callable(x):
            arguments.function_of_step(f"schedules[{name!r}]", x)
    last = _steps(chosen, steps)
    if steps_per_epoch is not None:
        arguments.positive(steps_per_epoch=steps_per_epoch)
    unit = 1 if steps_per_epoch is None else steps_per_epoch

    marked = {name: phases(x, last) for name, x in chosen.items()}
    at = {name: _grid(last, marked[name]) for name in chosen}
    values = {name: evaluated(name, x, at[name]) for name, x in chosen.items()}
    largest = max(
        float(np.max(y, where=np.isfinite(y), initial=-np.inf)) for y in values.values()
    )
    if log and not largest > 0:
        raise ValueError(
            "log must be False, because no value of these schedules is positive"
        )
    legend = style.Legend(chosen, ax, width)
    same = next(iter(marked.values()))
    shaded = all(x == same for x in marked.values()) and any(x.name for x in same)
    with style.canvas(ax, width, [0.6 * min(width, 4.5)], legend.lines + shaded) as (
        ax,
    ):
        for i, (name, y) in enumerate(values.items()):
            look = style.line_style(i)
            x, y = at[name] / unit, _on_axis(y, log, largest)
            ax.plot(x, y, label=legend.labels[i], zorder=3, **look)
            if not shaded and 1 < len(marked[name]) <= SHOWN:
                starts = np.array([phase.start for phase in marked[name][1:]]) / unit
                there = np.interp(starts, x, y)
                ax.plot(starts, there, "o", color=look["color"], ms=3.5, zorder=4)
        _set_axes(ax, list(values.values()), log, largest)
        ax.set_xlim(0, last / unit)
        ax.set_xlabel("step" if steps_per_epoch is None else "epoch")
        ax.set_ylabel("learning rate")
        if shaded and len(same) <= SHOWN:
            _shade(ax, same, last, unit, width)
        legend.draw(ax, lift=11 * shaded)
    return ax


def _is_schedule(x: Any) -> bool:
    return (callable(x) and not hasattr(x, "update")) or arguments.is_number(x)


def _steps(chosen: Mapping[str, Any], steps: int | None) -> int:
    """The last step to draw."""
    if steps is not None:
        arguments.at_least(1, steps=arguments.whole("steps", steps))
        return int(steps)
    ends = {name: end(x) for name, x in chosen.items() if callable(x)}
    open_ended = [name for name, x in ends.items() if x is None]
    if open_ended or not ends:
        which = f"{open_ended[0]!r} goes on" if open_ended else "a number goes on"
        raise ValueError(f"steps must be given, such as steps=1000, because {which}")
    return math.ceil(max(filter(None, ends.values())))


def _grid(last: int, marked: Sequence[Phase]) -> np.ndarray:
    """Whole steps, all of them if they are few; both sides of where a phase begins."""
    steps = np.linspace(0, last, min(last + 1, POINTS)).round()
    starts = [np.ceil(phase.start) for phase in marked]
    edges = np.array([[x - 1, x] for x in starts]).ravel()
    edges = edges[(edges >= 0) & (edges <= last)]
    return np.unique(np.concatenate([steps, edges])).astype(np.int64)


def evaluated(name: str, schedule: Any, steps: np.ndarray) -> np.ndarray:
    """The values of a schedule, compiled if it can be, else step after step."""
    if not callable(schedule):
        return np.full(len(steps), float(schedule))

    def value(step):
        return scheduled(repr(name), schedule, step)

    if is_traceable(schedule):
        counts = jnp.asarray(steps, jnp.int32)
        return np.asarray(jax.jit(jax.vmap(value))(counts), float)
    return np.array([float(value(jnp.int32(step))) for step in steps])


def _on_axis(values: np.ndarray, log: bool, largest: float) -> np.ndarray:
    """The values, with those too small for a logarithmic axis at its bottom."""
    if not log:
        return values
    bottom = 10.0**-DECADES * largest
    return np.where(values < bottom, bottom, values)


def _set_axes(ax: Any, values: list[np.ndarray], log: bool, largest: float) -> None:
    smallest = min(
        float(np.min(y, where=np.isfinite(y), initial=np.inf)) for y in values
    )
    if log:
        style.logarithmic(
            ax.yaxis, np.maximum(np.concatenate(values), 10.0**-DECADES * largest)
        )
        bottom = 10.0**-DECADES * largest
        if smallest < bottom:
            ax.set_ylim(bottom=bottom)
    else:
        style.plain_numbers(ax.yaxis)
        if 0 <= smallest < math.inf:
            top = largest or 1.0
            ax.set_ylim(-0.02 * top, 1.05 * top)  # a line at 0 lies above the frame


def _shade(
    ax: Any, marked: Sequence[Phase], last: int, unit: float, width: float
) -> None:
    """Shade every other phase, and write the names above where they have room."""
    ends = [phase.start for phase in marked[1:]] + [last]
    inches = 0.8 * width  # of the axes, about
    free = 0.0  # where the last name ends
    for i, (phase, stop) in enumerate(zip(marked, ends, strict=True)):
        if i % 2 == 0:
            ax.axvspan(phase.start / unit, stop / unit, color="0.94", lw=0, zorder=0)
        wide = 0.055 * len(phase.name) / inches * last
        middle = (phase.start + stop) / 2
        left = max(middle - wide / 2, phase.start)
        if phase.name and left >= free and left + wide <= last:
            free = left + wide * 1.15
            place = ax.get_xaxis_transform()
            ax.text(
                left / unit,
                1.015,
                phase.name,
                transform=place,
                fontsize="small",
                color=style.GREY,
            )
