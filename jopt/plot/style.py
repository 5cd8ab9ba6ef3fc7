"""What all pictures share: figures, colours and dashes, legends beside the data."""

from __future__ import annotations

import contextlib
import importlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of


# Okabe & Ito, "Color universal design", 2008, without the yellow, which is hard to see
# on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# As many as have no common divisor with the colours: 35 different lines.
DASHES = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#666666"

_SETTINGS = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "figure.dpi": 150,
    "savefig.dpi": 300,
}


def library(module: str = "pyplot") -> Any:
    """A module of matplotlib, imported when a picture is drawn.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            "a picture needs matplotlib: pip install 'jopt[plot]'"
        ) from error


@contextlib.contextmanager
def canvas(
    ax: Any, width: float, heights: Sequence[float], lines: int = 0
) -> Iterator[Any]:
    """Axes to draw on, one under the other, in the style of this package.

    Args:
      ax: The caller's Axes, whose fonts then stay; or None for a figure of its own.
      width: The width of that figure, in inches.
      heights: The height of each of the Axes.
      lines: The number of lines of the legend above them.
    """
    plt = library()
    if ax is not None:
        first(ax)
        given = list(np.ravel(np.asarray(ax, object)))
        if len(given) != len(heights):
            raise ValueError(
                f"ax must be {len(heights)} Axes, one for each panel, got {len(given)}"
            )
        yield given
        return
    arguments.positive(width=width)
    with plt.rc_context(_SETTINGS):
        size = (width, sum(heights) + 0.15 * lines)
        _, axes = plt.subplots(
            len(heights),
            figsize=size,
            sharex=True,
            squeeze=False,
            layout="constrained",
            height_ratios=heights,
        )
        yield list(axes[:, 0])


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th line."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[i % len(DASHES)],
    }


def logarithmic(axis: Any, values: np.ndarray) -> None:
    """Make an axis logarithmic, with numbers at decades or, if those are few, more."""
    axis.axes.set_yscale("log")
    ticker = library("ticker")
    known = values[np.isfinite(values) & (values > 0)]
    if np.log10(known.max() / known.min()) < 1.5:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        plain_numbers(axis)
    axis.set_minor_formatter(ticker.NullFormatter())


class Legend:
    """A legend above the Axes, where no data are.

    Args:
      labels: The labels of the lines, which are wrapped.
      ax: The caller's Axes, or None.
      width: The width of the figure if there are none.
    """

    def __init__(self, labels: Iterable[str], ax: Any, width: float):
        inches, points = width - 0.5, 7.0
        if ax is not None:
            ax, points = first(ax), float(library().rcParams["font.size"])
            inches = ax.get_window_extent().width / ax.figure.dpi
        characters = max(25, int(112 / points * inches))
        self.labels = [
            textwrap.fill(x, characters - _HANDLE, break_long_words=True)
            for x in labels
        ]
        longest = max(len(line) for x in self.labels for line in x.split("\n"))
        self.columns = max(1, characters // (longest + _HANDLE + 2))
        rows = -(-len(self.labels) // self.columns)
        blocks = [self.labels[i : i + rows] for i in range(0, len(self.labels), rows)]
        self.lines = max(sum(x.count("\n") + 1 for x in block) for block in blocks)

    def draw(self, ax: Any, lift: float = 0) -> None:
        """Draw it, ``lift`` points higher than just above the Axes."""
        translation = library("transforms").ScaledTranslation
        up = translation(0, (lift + 2) / 72, ax.figure.dpi_scale_trans)
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            bbox_transform=ax.transAxes + up,
            borderaxespad=0,
            borderpad=0.1,
            frameon=False,
            ncols=self.columns,
            handlelength=2.6,
            columnspacing=1.2,
            labelspacing=0.3,
        )


_HANDLE = 7  # characters as wide as the piece of line beside a label


def first(ax: Any) -> Any:
    """The first of some Axes, or the only one; raise if it is something else."""
    found = np.ravel(np.asarray(ax, object))
    if not len(found) or not hasattr(found[0], "plot"):
        raise TypeError(
            "ax must be Axes of matplotlib, such as those of plt.subplots(), got "
            f"{abbreviated(ax)}"
        )
    return found[0]


def plain_numbers(axis: Any) -> None:
    """Write numbers in full, as 0.0005: a power of ten above would be in the way."""
    axis.set_major_formatter(lambda x, _: f"{x:.6g}")


def named(
    what: str, positional: Sequence[Any], is_one: Callable[[Any], bool]
) -> dict[str, Any]:
    """What is to be drawn, by label: dicts of names, and values with their repr.

    Args:
      what: What is drawn, for errors.
      positional: The arguments of the call.
      is_one: Whether a value is one of what is drawn.

    Raises:
      ValueError: There is nothing, or two have the same label.
      TypeError: A value is neither a dict nor one of what is drawn.
    """
    pairs = []
    for i, value in enumerate(positional):
        if isinstance(value, Mapping):
            pairs += [(str(name), x, f"[{text_of(name)}]") for name, x in value.items()]
        else:
            name = getattr(value, "__qualname__", None) or text_of(value)
            pairs.append((name, value, f"[{i}]"))
    if not pairs:
        raise ValueError(f"{what} must be one or more, got none")
    result = {}
    for label, value, place in pairs:
        if not is_one(value):
            raise TypeError(f"{what}{place} cannot be drawn: {abbreviated(value)}")
        if label in result:
            raise ValueError(
                f"two of {what} have the label {label!r}. Name them in a dict: "
                "{'first': …, 'second': …}"
            )
        result[label] = value
    return result
