"""THE table of schedules: which of jopt's equals which of Keras, torch and optax.

It is also the translation: every scheduler of torch, Keras and optax has a row (torch's
and Keras's ReduceLROnPlateau, which look at a metric, have theirs in plateau.py).

`python -m tests.parity.schedules` runs the real ones, in float64, and keeps what they
answer in schedules.npz: per library the texts of its rows, the versions, and the values
of one row after the other. With library names behind it only those are renewed.
"""

import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .process import result_of


GOLDEN = Path(__file__).with_name("schedules.npz")
LIBRARIES = ("keras", "torch", "optax", "pytorch_optimizer")
RTOL = {"float32": 5e-7, "float64": 1e-14}


@dataclass(frozen=True)
class Row:
    """One schedule at the steps 0, 1, ...; equal within RTOL, and `atol` of zero."""

    library: str
    oracle: str  # for torch, without the optimizer, whose learning rate is 0.1
    jopt: str
    steps: int = 40
    read: str = "lr"  # what torch schedules: its learning rate, or its momentum
    atol: float = 1e-15  # for the libraries' rounding where they should give zero

    @property
    def recipe(self):
        """What the oracle's numbers depend on."""
        return f"{self.oracle} | {self.read} | {self.steps}"


def optax(oracle, jopt=None):
    """A row against optax, by default with the very same text."""
    return Row("optax", oracle, jopt or oracle)


keras, torch = partial(Row, "keras"), partial(Row, "torch")
pytorch_optimizer = partial(Row, "pytorch_optimizer")
keras_cosine = partial(keras, atol=2e-8)  # it computes them in float32 in any case

KERAS = (
    keras("ExponentialDecay(0.1, 10, 0.9)", "exponential_decay(0.1, 10, 0.9)"),
    keras("ExponentialDecay(0.1, 7, 0.1)", "exponential_decay(0.1, 7, 0.1)"),
    keras(
        "ExponentialDecay(0.1, 7, 0.96, staircase=True)",
        "exponential_decay(0.1, 7, 0.96, staircase=True)",
    ),
    keras(
        "PiecewiseConstantDecay([5, 17], [0.1, 0.0, 0.05])",
        "piecewise_constant([5, 17], [0.1, 0.0, 0.05], switch='after')",
    ),
    keras(
        "PiecewiseConstantDecay([0], [0.1, 0.05])",
        "piecewise_constant([0], [0.1, 0.05], switch='after')",
    ),
    keras(
        "PiecewiseConstantDecay([5, 17], [0.1, 0.05, 0.005])",
        "piecewise_constant_schedule(0.1, {5: 0.5, 17: 0.1}, switch='after')",
    ),
    keras(
        "PolynomialDecay(0.1, 11)",
        "polynomial_schedule(0.1, 0.0001, 1.0, 11)",
    ),
    keras(
        "PolynomialDecay(0.1, 11, 0.01, power=0.5)",
        "polynomial_schedule(0.1, 0.01, 0.5, 11)",
    ),
    keras(
        "PolynomialDecay(0.1, 10, 0.01, cycle=True)",
        "polynomial_schedule(0.1, 0.01, 1.0, 10, cycle=True)",
    ),
    keras(
        "PolynomialDecay(0.1, 7, 0.001, power=2.0, cycle=True)",
        "polynomial_schedule(0.1, 0.001, 2.0, 7, cycle=True)",
    ),
    keras("InverseTimeDecay(0.1, 10, 0.5)", "inverse_time_decay(0.1, 10, 0.5)"),
    keras("InverseTimeDecay(0.1, 1, 2.0)", "inverse_time_decay(0.1, 1, 2.0)"),
    keras(
        "InverseTimeDecay(0.1, 7, 0.5, staircase=True)",
        "inverse_time_decay(0.1, 7, 0.5, staircase=True)",
    ),
    keras_cosine("CosineDecay(0.1, 13)", "cosine_decay_schedule(0.1, 13)"),
    keras_cosine(
        "CosineDecay(0.1, 13, alpha=0.1)", "cosine_decay_schedule(0.1, 13, 0.1)"
    ),
    keras_cosine(
        "CosineDecay(0.01, 12, alpha=0.1, warmup_target=0.1, warmup_steps=5)",
        "warmup_cosine(0.1, warmup_steps=5, total_steps=17, init_value=0.01,"
        " end_value=0.01)",
    ),
    keras_cosine(
        "CosineDecay(0.01, 12, warmup_target=0.1, warmup_steps=0)",
        "warmup_cosine_decay_schedule(0.01, 0.1, 0, 12)",
    ),
    keras_cosine("CosineDecayRestarts(0.1, 5)", "cosine_decay_restarts(0.1, 5)"),
    keras_cosine(
        "CosineDecayRestarts(0.1, 6, t_mul=1.0, m_mul=0.8, alpha=0.1)",
        "cosine_decay_restarts(0.1, 6, 1.0, 0.8, 0.1)",
    ),
    keras_cosine(
        "CosineDecayRestarts(0.1, 5, t_mul=1.5, m_mul=0.9)",
        "cosine_decay_restarts(0.1, 5, 1.5, 0.9)",
    ),
    keras_cosine(
        "CosineDecayRestarts(0.1, 4, t_mul=3.0, m_mul=2.0, alpha=0.01)",
        "cosine_decay_restarts(0.1, 4, 3.0, 2.0, 0.01)",
    ),
)

ONE_CYCLE = "OneCycleLR(max_lr=0.1, total_steps="

TORCH = (
    torch(
        "ConstantLR(factor=0.5, total_iters=5)", "piecewise_constant([5], [0.05, 0.1])"
    ),
    torch(
        "LinearLR(start_factor=0.25, total_iters=7)", "linear_schedule(0.025, 0.1, 7)"
    ),
    torch(
        "LinearLR(start_factor=0.5, end_factor=0.2, total_iters=10)",
        "linear_schedule(0.05, 0.02, 10)",
    ),
    torch("ExponentialLR(gamma=0.9)", "exponential_decay(0.1, 1, 0.9)"),
    torch(
        "LambdaLR(lr_lambda=lambda e: 1 / (1 + e / 4) * min(1, e / 9))",
        "multiply_schedules([0.1, inverse_time_decay(1.0, 4, 1.0),"
        " linear_schedule(0.0, 1.0, 9)])",
    ),
    torch(
        "MultiplicativeLR(lr_lambda=lambda e: 0.95)", "exponential_decay(0.1, 1, 0.95)"
    ),
    torch(
        "MultiplicativeLR(lr_lambda=lambda e: 0.9 if e < 5 else 1.1 if e < 17 else"
        " 0.95)",
        "multiplicative_schedule(0.1, piecewise_constant([5, 17], [0.9, 1.1, 0.95]),"
        " total_steps=39)",
    ),
    torch(
        "MultiplicativeLR(lr_lambda=lambda e: 1 / (1 + 0.1 * e))",
        "multiplicative_schedule(0.1, inverse_time_decay(1.0, 1, 0.1), total_steps=39)",
    ),
    torch(
        "StepLR(step_size=7, gamma=0.1)",
        "exponential_decay(0.1, 7, 0.1, staircase=True)",
    ),
    torch(
        "MultiStepLR(milestones=[5, 17], gamma=0.1)",
        "piecewise_constant_schedule(0.1, {5: 0.1, 17: 0.1})",
    ),
    # What occurs twice counts twice.
    torch(
        "MultiStepLR(milestones=[5, 17, 5], gamma=0.5)",
        "piecewise_constant_schedule(0.1, {5: 0.25, 17: 0.5})",
    ),
    torch("PolynomialLR(total_iters=11)", "linear_schedule(0.1, 0.0, 11)"),
    torch(
        "PolynomialLR(total_iters=11, power=2.0)",
        "polynomial_schedule(0.1, 0.0, 2.0, 11)",
    ),
    # torch goes up again after T_max.
    torch(
        "CosineAnnealingLR(T_max=30, eta_min=0.01)",
        "cosine_decay_schedule(0.1, 30, 0.1)",
        31,
    ),
    torch(
        "CosineAnnealingLR(T_max=7, eta_min=0.01)",
        "cyclic_schedule(0.1, 0.01, 7, shape='cosine')",
    ),
    torch(
        "CosineAnnealingLR(T_max=10)", "cyclic_schedule(0.1, 0.0, 10, shape='cosine')"
    ),
    torch(
        "CosineAnnealingWarmRestarts(T_0=6)", "cosine_decay_restarts(0.1, 6, t_mul=1.0)"
    ),
    torch(
        "CosineAnnealingWarmRestarts(T_0=4, T_mult=3, eta_min=0.01)",
        "cosine_decay_restarts(0.1, 4, 3.0, alpha=0.1)",
    ),
    torch(
        "SequentialLR(milestones=[8], schedulers=[LinearLR(start_factor=0.5,"
        " total_iters=8), ExponentialLR(gamma=0.9)])",
        "warmup_exponential_decay_schedule(0.05, 0.1, 8, 1, 0.9)",
    ),
    torch(
        "SequentialLR(milestones=[5, 20], schedulers=[ConstantLR(factor=0.5,"
        " total_iters=5), CosineAnnealingLR(T_max=15, eta_min=0.05),"
        " StepLR(step_size=6, gamma=0.5)])",
        "join_schedules([constant_schedule(0.05), cosine_decay_schedule(0.1, 15, 0.5),"
        " exponential_decay(0.1, 6, 0.5, staircase=True)], [5, 20])",
    ),
    torch(
        "ChainedScheduler([ConstantLR(factor=0.25, total_iters=4),"
        " ExponentialLR(gamma=0.9)])",
        "multiply_schedules([0.1, piecewise_constant([4], [0.25, 1.0]),"
        " exponential_decay(1.0, 1, 0.9)])",
    ),
    torch(
        "ChainedScheduler([LinearLR(start_factor=0.5, total_iters=5),"
        " StepLR(step_size=7, gamma=0.1), ExponentialLR(gamma=0.95)])",
        "multiply_schedules([linear_schedule(0.05, 0.1, 5),"
        " exponential_decay(1.0, 7, 0.1, staircase=True),"
        " exponential_decay(1.0, 1, 0.95)])",
    ),
    torch("SWALR(swa_lr=0.05)", "cosine_decay_schedule(0.1, 10, 0.5)"),
    torch(
        "SWALR(swa_lr=0.25, anneal_epochs=7, anneal_strategy='linear')",
        "linear_schedule(0.1, 0.25, 7)",
    ),
    *(
        torch(f"CyclicLR({n})", f"cyclic_schedule({x})", read=read, atol=2e-15)
        for n, x, read in (
            ("base_lr=0.01, max_lr=0.1, step_size_up=5", "0.01, 0.1, 5", "lr"),
            (
                "base_lr=0.0, max_lr=0.1, step_size_up=3, step_size_down=8",
                "0.0, 0.1, 3, 8",
                "lr",
            ),
            (
                "base_lr=0.01, max_lr=0.1, step_size_up=7, step_size_down=2,"
                " mode='triangular2'",
                "0.01, 0.1, 7, 2, mode='triangular2'",
                "lr",
            ),
            (
                "base_lr=0.01, max_lr=0.1, step_size_up=5, mode='exp_range', gamma=0.9",
                "0.01, 0.1, 5, mode='exp_range', gamma=0.9",
                "lr",
            ),
            ("base_lr=0.01, max_lr=0.1, step_size_up=5", "0.9, 0.8, 5", "momentum"),
            (
                "base_lr=0.01, max_lr=0.1, step_size_up=5, step_size_down=4,"
                " mode='triangular2', base_momentum=0.5, max_momentum=0.95",
                "0.95, 0.5, 5, 4, mode='triangular2'",
                "momentum",
            ),
            (
                "base_lr=0.01, max_lr=0.1, step_size_up=5, mode='exp_range', gamma=0.9",
                "0.9, 0.8, 5, mode='exp_range', gamma=0.9",
                "momentum",
            ),
        )
    ),
    *(
        torch(f"{ONE_CYCLE}{n}{x})", f"onecycle_schedule(0.1, total_steps={n}{x})", n)
        for n, x in (
            (40, ""),
            (10, ""),
            (7, ""),
            (1, ""),
            (40, ", anneal_strategy='linear'"),
            (10, ", pct_start=0.25"),
            (40, ", pct_start=0.0"),
            (40, ", pct_start=1.0"),
            (40, ", three_phase=True"),
            (31, ", three_phase=True, pct_start=0.25, anneal_strategy='linear'"),
            (30, ", three_phase=True, pct_start=0.5"),
            (30, ", three_phase=True, pct_start=0.0"),
            (30, ", div_factor=5.0, final_div_factor=0.5"),
        )
    ),
    *(
        torch(
            f"{ONE_CYCLE}40{x})",
            f"onecycle_schedule(0.85, total_steps=40, div_factor=0.85 / 0.95,"
            f" final_div_factor=1.0{x})",
            read="momentum",
        )
        for x in ("", ", three_phase=True")
    ),
)

OPTAX = (
    optax("constant_schedule(0.1)"),
    optax("linear_schedule(0.1, 0.01, 13)"),
    optax("linear_schedule(0.0, 0.1, 13, 5)"),
    optax("linear_schedule(-0.1, 0.0, 13)"),
    optax("polynomial_schedule(0.1, 0.01, 2.0, 13, 5)"),
    optax("polynomial_schedule(0.0, 0.1, 0.5, 13)"),
    optax("polynomial_schedule(0.0, 0.1, 3.0, 13)"),
    optax("exponential_decay(0.1, 10, 0.5)"),
    optax("exponential_decay(0.1, 10, 0.5, 7, staircase=True)"),
    optax("exponential_decay(0.1, 10, 0.5, end_value=0.03)"),
    optax("exponential_decay(0.1, 10, 1.5, 3, end_value=0.2)"),
    optax("piecewise_constant_schedule(0.1)"),
    optax("piecewise_constant_schedule(0.1, {17: 0.1, 5: 0.5})"),
    optax("piecewise_constant_schedule(0.1, {0: 0.5, 8: 0.0})"),
    optax("cosine_decay_schedule(0.1, 13)"),
    optax("cosine_decay_schedule(0.1, 13, 0.1, 2.0)"),
    optax("warmup_constant_schedule(0.0, 0.1, 7)"),
    optax("warmup_cosine_decay_schedule(0.0, 0.1, 7, 30)"),
    optax("warmup_cosine_decay_schedule(0.01, 0.1, 7, 30, 0.001, 1.5)"),
    optax("warmup_cosine_decay_schedule(0.01, 0.1, 0, 30)"),
    optax("warmup_exponential_decay_schedule(0.0, 0.1, 7, 5, 0.5)"),
    optax("warmup_exponential_decay_schedule(0.0, 0.1, 7, 5, 0.5, 3, True, 0.02)"),
    optax("piecewise_interpolate_schedule('linear', 0.1, {13: 2.0, 5: 0.5})"),
    optax("piecewise_interpolate_schedule('cosine', 0.1, {5: 0.5, 13: 2.0, 20: 0.0})"),
    optax("piecewise_interpolate_schedule('cosine', 0.1, {0: 0.5, 13: 2.0})"),
    optax("piecewise_interpolate_schedule('linear', 0.1)"),
    optax("linear_onecycle_schedule(30, 0.1)"),
    optax("linear_onecycle_schedule(30, 0.1, 0.2, 0.6, 10.0, 100.0)"),
    optax("linear_onecycle_schedule(1, 0.1)"),
    optax("cosine_onecycle_schedule(30, 0.1)"),
    optax("cosine_onecycle_schedule(30, 0.1, 0.0, 10.0, 100.0)"),
    optax(
        "sgdr_schedule([dict(init_value=0.0, peak_value=0.1, warmup_steps=2,"
        " decay_steps=9), dict(init_value=0.01, peak_value=0.05, warmup_steps=4,"
        " decay_steps=12, end_value=0.001), dict(init_value=0.02, peak_value=0.1,"
        " warmup_steps=0, decay_steps=13, exponent=2.0)])"
    ),
    optax(
        "sgdr_schedule([dict(init_value=0.0, peak_value=0.1, warmup_steps=2,"
        " decay_steps=9)])"
    ),
    optax(
        "join_schedules([constant_schedule(0.1), linear_schedule(0.2, 0.0, 9)], [5])"
    ),
    optax(
        "join_schedules([linear_schedule(0.0, 0.1, 7), constant_schedule(0.1),"
        " polynomial_schedule(0.1, 0.0, 1, 10)], [7, 20])",
        "warmup_stable_decay(0.1, warmup_steps=7, decay_steps=10, total_steps=30)",
    ),
    optax(
        "join_schedules([linear_schedule(0.0, 0.1, 7), linear_schedule(0.1, 0.01, 23)],"
        " [7])",
        "warmup_linear(0.1, warmup_steps=7, total_steps=30, end_value=0.01)",
    ),
    optax(
        "warmup_cosine_decay_schedule(0.01, 0.1, 7, 30, 0.001)",
        "warmup_cosine(0.1, warmup_steps=7, total_steps=30, init_value=0.01,"
        " end_value=0.001)",
    ),
)

WSD = "num_warmup_steps=7, num_stable_steps=13, num_decay_steps=10, cooldown_type="

PYTORCH_OPTIMIZER = (
    pytorch_optimizer("REXScheduler(total_steps=13)", "rex_schedule(1.0, 0.0, 13)"),
    pytorch_optimizer(
        "REXScheduler(total_steps=30, max_lr=0.1, min_lr=0.01)",
        "rex_schedule(0.1, 0.01, 30)",
    ),
    *(
        pytorch_optimizer(
            f"get_wsd_schedule({WSD}{shape!r})",
            "warmup_stable_decay(0.1, warmup_steps=7, decay_steps=10, total_steps=30,"
            f" decay_shape={shape!r})",
        )
        for shape in ("linear", "cosine", "1-sqrt", "1-square")
    ),
    pytorch_optimizer(
        f"get_wsd_schedule({WSD}'cosine', min_lr_ratio=0.1)",
        "warmup_stable_decay(0.1, warmup_steps=7, decay_steps=10, total_steps=30,"
        " end_value=0.01, decay_shape='cosine')",
    ),
    pytorch_optimizer(
        "CosineAnnealingWarmupRestarts(first_cycle_steps=12, max_lr=0.1, min_lr=0.01,"
        " warmup_steps=3, gamma=0.5)",
        "sgdr_schedule([dict(init_value=0.01, peak_value=0.1 * 0.5**i, warmup_steps=3,"
        " decay_steps=12, end_value=0.01) for i in range(4)])",
    ),
)

ROWS = KERAS + TORCH + OPTAX + PYTORCH_OPTIMIZER


def rows_of(library):
    """The rows against this library, in the order of its golden numbers."""
    return tuple(row for row in ROWS if row.library == library)


def run_keras(row):
    """The values of a Keras schedule."""
    import jax
    import keras

    keras.config.set_floatx("float64")
    schedule = eval(row.oracle, dict(vars(keras.optimizers.schedules)))
    return jax.vmap(schedule)(np.arange(row.steps))


def made_by(text, *modules):
    """A scheduler in torch's style, and its optimizer, which it wants first."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    names = {n: x for module in modules for n, x in vars(module).items()}
    bound = {n: partial(x, optimizer) for n, x in names.items() if callable(x)}
    chained = {"ChainedScheduler": torch.optim.lr_scheduler.ChainedScheduler}
    return eval(text, bound | chained), optimizer


def run_torch(row, *modules):
    """The values that a torch scheduler sets, step after step."""
    import torch

    modules = modules or (torch.optim.lr_scheduler, torch.optim.swa_utils)
    scheduler, optimizer = made_by(row.oracle, *modules)
    values = [optimizer.param_groups[0][row.read]]
    while len(values) < row.steps:
        optimizer.step()
        scheduler.step()
        values.append(optimizer.param_groups[0][row.read])
    return values


def run_pytorch_optimizer(row):
    """The values that one of its schedulers sets."""
    from pytorch_optimizer import lr_scheduler

    if not row.oracle.startswith("REX"):
        return run_torch(row, lr_scheduler)
    # It skips the first of its own values, so each is asked for.
    scheduler, _ = made_by(row.oracle, lr_scheduler)
    values = []
    for scheduler.step_t in range(row.steps):
        values.append(scheduler.get_linear_lr())
    return values


def run_optax(row):
    """The values of an optax schedule."""
    import jax
    import optax

    schedule = jax.vmap(eval(row.oracle, dict(vars(optax))))
    return np.broadcast_to(schedule(np.arange(row.steps)), row.steps)


RUNNERS = {
    "keras": run_keras,
    "torch": run_torch,
    "optax": run_optax,
    "pytorch_optimizer": run_pytorch_optimizer,
}


def oracle(library):
    """The values of all of a library's rows, one row after the other."""
    return result_of("schedules", library, x64=True)


def by_row(library, values):
    """The values of each row."""
    ends = np.cumsum([row.steps for row in rows_of(library)])
    return dict(zip(rows_of(library), np.split(values, ends[:-1]), strict=True))


def main(arguments):
    """Renew the golden numbers of the named libraries, of all without a name."""
    if arguments[:1] == ["--run"]:
        library, path = arguments[1:]
        values = [np.asarray(RUNNERS[library](row), float) for row in rows_of(library)]
        np.save(path, np.concatenate(values))
        return
    golden = dict(np.load(GOLDEN)) if arguments else {}
    for library in arguments or LIBRARIES:
        golden[f"{library}.rows"] = np.array([r.recipe for r in rows_of(library)])
        packages = dict.fromkeys([library, "jax", "numpy"])
        golden[f"{library}.versions"] = np.array(
            [f"{p} {version(p)}" for p in packages]
        )
        golden[library] = oracle(library)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
