"""The pictures of docs/arena.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jopt.plot.style import canvas, library, line_style, logarithmic


TITLES = {
    False: "loss at the end / AdamW's",
    True: "steps to the goal / AdamW's (white: not reached, or not run)",
}


def overview(
    ratios: Mapping[bool, Mapping[str, Mapping[str, float | None]]], target: Path
) -> None:
    """Draw a field of numbers for each kind of problem: optimizers by problems."""
    shown = {kind: of for kind, of in ratios.items() if of}
    everyone = {
        kind: list(dict.fromkeys(name for row in of.values() for name in row))
        for kind, of in shown.items()
    }
    heights = [0.9 + 0.19 * len(everyone[kind]) for kind in shown]
    with canvas(None, 7, [sum(heights)]) as (first,):
        figure = first.figure
        figure.clear()
        axes = figure.subplots(len(shown), height_ratios=heights, squeeze=False)[:, 0]
        for ax, (kind, of) in zip(axes, shown.items(), strict=True):
            names = everyone[kind]
            values = np.array(
                [[of[p].get(name, np.nan) for p in of] for name in names], float
            )
            # A loss of 0 is as blue as a small one.
            mapped = np.ma.masked_invalid(np.log10(np.maximum(values, 1e-9)))
            ax.imshow(mapped, cmap="RdBu_r", vmin=-1.2, vmax=1.2, aspect="auto")
            for (i, j), x in np.ndenumerate(values):
                if np.isfinite(x):
                    colour = "white" if abs(mapped[i, j]) > 0.8 else "black"
                    ax.text(
                        j, i, _short(x), ha="center", va="center", color=colour, size=6
                    )
            problems = [p.replace("_", "\n") for p in of]
            ax.set_xticks(range(len(problems)), problems, size=6)
            ax.set_yticks(range(len(names)), names)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.set_title(TITLES[kind], loc="left")
        _save(figure, target)


def _short(x: float) -> str:
    return f"{x:.0e}".replace("e-0", "e-") if 0 < x < 0.01 else f"{x:.2g}"


def shown_of(results: Mapping[str, Any]) -> list[str]:
    """SGD, AdamW, and the four others whose curves end lowest."""
    others = [x for x in results if x not in ("sgd", "adamw")]
    ends = {x: results[x]["curve"][-1] for x in others}
    known = [x for x in others if ends[x] is not None]
    return ["sgd", "adamw", *sorted(known, key=lambda x: ends[x])[:4]]


def curves(found: Mapping[str, Mapping[str, Any]], target: Path) -> None:
    """Draw learning curves, a panel for each problem."""
    with canvas(None, 7, [2.6 * -(-len(found) // 2)]) as (ax,):
        figure = ax.figure
        figure.clear()
        panels = figure.subplots(-(-len(found) // 2), 2, squeeze=False).ravel()
        names = list(dict.fromkeys(x for of in found.values() for x in shown_of(of)))
        looks = {name: line_style(i) for i, name in enumerate(names)}
        for ax, (title, results) in zip(panels, found.items(), strict=False):
            low, high = [], []
            for name in [x for x in shown_of(results) if x in results]:
                result = results[name]
                curve = np.array(result["curve"], float)
                ax.plot(result["steps"], curve, label=name, **looks[name])
                low.append(np.nanmin(curve))
                high.append(curve[len(curve) // 4])
            logarithmic(ax.yaxis, np.array([min(low), max(high)]))
            ax.set(ylim=(min(low) / 1.2, max(high) * 1.2), xlim=(0, None))
            ax.set_title(title, loc="left")
        for ax in panels[len(found) :]:
            ax.remove()
        for ax in panels[-2:]:
            ax.set_xlabel("step")
        handles = {}
        for ax in panels[: len(found)]:
            lines, labels = ax.get_legend_handles_labels()
            handles |= dict(zip(labels, lines, strict=True))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=5,
            frameon=False,
        )
        _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=200, bbox_inches="tight")
    library().close(figure)
