"""THE table: the state of each optimizer of ``torch.optim``, and its place in jopt.

Checked against torch 2.13. A source is ``member/field``: the name of a factory and a
field of its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jopt.interop.shared.momentum_units import Factor, argument, bare, one
from jopt.interop.shared.state_view import Member, View


class Slot(NamedTuple):
    """An array that torch keeps for every parameter, under one key."""

    sources: tuple[str, ...]
    factor: Factor = one  # torch's value / jopt's value


class Row(NamedTuple):
    """One optimizer of torch."""

    classes: tuple[str, ...]
    slots: dict[str, Slot]
    scalars: dict[str, str] = {}  # noqa: RUF012, key -> source, one for all parameters
    # Keys that jopt does not keep: functions of the step count and a parameter's path;
    # and the sources of those that some recipes keep.
    derived: dict[str, Callable[[View, int, str], float]] = {}  # noqa: RUF012
    sometimes: dict[str, str] = {}  # noqa: RUF012
    counts: bool = True  # whether torch keeps the number of steps

    def kept(self, view: View) -> dict[str, str]:
        """Return the sources of the scalars that a state has, by torch's key."""
        found = {k: s for k, s in self.sometimes.items() if view.scalars(s)}
        return {**self.scalars, **found}

    @property
    def sources(self) -> list[str]:
        """The sources of all slots."""
        return [s for slot in self.slots.values() for s in slot.sources]


def _eta(view: View, count: int, path: str) -> float:
    """Compute the step size of ASGD's next step."""
    member = view.scalar("asgd/count", path)[1]
    lr, lambd, alpha = view.first_rate(path), *_numbers(member, "lambd", "alpha")
    assert lr is not None
    return lr / (1 + lambd * lr * count) ** alpha


def _mu(view: View, count: int, path: str) -> float:
    """Compute the share of the next parameters in ASGD's average."""
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
            # Only signs matter in jopt's state, and they agree with the gradients'.
            "prev": Slot(("scale_by_rprop/prev_updates",)),
            "step_size": Slot(("scale_by_rprop/step_sizes",)),
        },
    ),
    Row(
        ("ASGD",),
        {"ax": Slot(("asgd/ax",))},
        derived={"eta": _eta, "mu": _mu},
        sometimes={"eta": "asgd/eta"},
    ),
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
    """Return the row of a recipe."""
    return view.row_of(ROWS, "torch")
