"""THE table: what each optimizer of ``torch.optim`` keeps, and where that is here.

Run against torch 2.13. A source is ``member/field``: the factory's name and a field of
its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jopt.interop.shared.momentum_units import Factor, argument, bare, one
from jopt.interop.shared.state_view import Member, View


class Slot(NamedTuple):
    """What torch keeps for every parameter under one key."""

    sources: tuple[str, ...]
    factor: Factor = one  # theirs = factor * ours


class Row(NamedTuple):
    """One optimizer of torch."""

    classes: tuple[str, ...]
    slots: dict[str, Slot]
    scalars: dict[str, str] = {}  # noqa: RUF012, key -> source; the same for all
    # What is not kept here, by the count, for a parameter.
    derived: dict[str, Callable[[View, int, str], float]] = {}  # noqa: RUF012
    counts: bool = True  # whether torch keeps the step

    @property
    def sources(self) -> list[str]:
        """Where all of this is kept here."""
        return [s for slot in self.slots.values() for s in slot.sources]


def _eta(view: View, count: int, path: str) -> float:
    """The step size of ASGD's next step."""
    member = view.scalar("asgd/count", path)[1]
    lr, lambd, alpha = view.first_rate(path), *_numbers(member, "lambd", "alpha")
    assert lr is not None
    return lr / (1 + lambd * lr * count) ** alpha


def _mu(view: View, count: int, path: str) -> float:
    """The share of the next parameters in ASGD's average."""
    (t0,) = _numbers(view.scalar("asgd/count", path)[1], "t0")
    return 1 / max(1, count - t0)


def _numbers(member: Member, *names: str) -> list[float]:
    return [argument(member, name) for name in names]


def _moments(member: str, second: str = "exp_avg_sq") -> dict[str, Slot]:
    return {"exp_avg": Slot((f"{member}/mu",)), second: Slot((f"{member}/nu",))}


# The first row whose members include all members of a recipe is the recipe's.
ROWS = (
    Row(("SGD",), {"momentum_buffer": Slot(("trace/trace",), bare)}, counts=False),
    Row(
        ("RMSprop",),
        {
            "square_avg": Slot(("scale_by_rms/nu", "scale_by_stddev/nu")),
            "momentum_buffer": Slot(("trace/trace",), bare),
            "grad_avg": Slot(("scale_by_stddev/mu",)),
        },
    ),
    Row(("Adam", "AdamW", "SparseAdam"), _moments("scale_by_adam")),
    Row(
        ("Adam", "AdamW"),
        {
            **_moments("scale_by_amsgrad"),
            "max_exp_avg_sq": Slot(("scale_by_amsgrad/nu_max",)),
        },
    ),
    Row(
        ("NAdam",),
        _moments("scale_by_nadam"),
        scalars={"mu_product": "scale_by_nadam/mu_product"},
    ),
    Row(("RAdam",), _moments("scale_by_radam")),
    Row(("Adamax",), _moments("scale_by_adamax", "exp_inf")),
    Row(("Adagrad",), {"sum": Slot(("scale_by_rss/sum_of_squares",))}),
    Row(
        ("Adadelta",),
        {
            "square_avg": Slot(("scale_by_adadelta/e_g",)),
            "acc_delta": Slot(("scale_by_adadelta/e_x",)),
        },
    ),
    Row(
        ("Rprop",),
        {
            # Of ours only the signs matter, and they are those of the gradients.
            "prev": Slot(("scale_by_rprop/prev_updates",)),
            "step_size": Slot(("scale_by_rprop/step_sizes",)),
        },
    ),
    Row(("ASGD",), {"ax": Slot(("asgd/ax",))}, derived={"eta": _eta, "mu": _mu}),
    Row(
        ("Adafactor",),
        {
            "row_var": Slot(("scale_by_factored_rms/v_row",)),
            "col_var": Slot(("scale_by_factored_rms/v_col",)),
            "variance": Slot(("scale_by_factored_rms/v",)),
        },
    ),
    Row(("Muon",), {"momentum_buffer": Slot(("scale_by_muon/mu",))}, counts=False),
)


def row_of(view: View) -> Row:
    """The row of a recipe."""
    return view.row_of(ROWS, "torch")
