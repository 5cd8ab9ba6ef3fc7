"""THE table of optimizers whose state goes from the real library to jopt and back.

`python -m tests.parity.states` runs Keras and torch for twelve steps and keeps in
states.npz what their optimizers held after six, and the parameters after six and
twelve. torch's kernel is (outputs, inputs) unless the optimizer looks at its shape.
"""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .problem import GRADS, PARAMS, flat
from .process import result_of


GOLDEN = Path(__file__).with_name("states.npz")
LIBRARIES = ("keras", "torch")
MODELS = Path(__file__).parent / "models"
HALF, MIDDLE, STEPS = 6, 9, 12
AS_IS = ("Adafactor", "Muon")  # torch's that are no elementwise methods


@dataclass(frozen=True)
class Row:
    """One optimizer, as the library and as jopt write it."""

    library: str
    oracle: str
    jopt: str

    @property
    def leaves(self):
        """Those that are optimized: torch's Muon takes matrices only."""
        only = self.library == "torch" and self.oracle.startswith("Muon")
        return ("kernel",) if only else ("kernel", "bias")

    @property
    def transposed(self):
        """Whether the library has the kernel as (outputs, inputs)."""
        return self.library == "torch" and not self.oracle.startswith(AS_IS)


HAT = "eps=1e-7, eps_mode='before'"
DECAY = "inverse_time_decay(0.05, 2, 0.5)"
GROUPED = (
    "OptimizerMap(Nadam(0.01), {'ker.*': SGD(InverseTimeDecay(0.05, 2, 0.5), 0.9), "
    "'no.*': Adam(0.01)})"
)
KERAS = [
    ("SGD(0.05)", "sgd(0.05)"),
    ("SGD(0.05, momentum=0.9)", "sgd(0.05, 0.9, lr_in_momentum=True)"),
    # The same numbers, with another momentum.
    ("SGD(0.05, momentum=0.9)", "sgd(0.01, 0.9)"),
    (
        "SGD(InverseTimeDecay(0.05, 2, 0.5), momentum=0.9, nesterov=True)",
        f"sgd({DECAY}, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    ("RMSprop(0.01)", "rmsprop(0.01, eps=1e-7)"),
    (
        "RMSprop(0.01, momentum=0.9, centered=True)",
        "rmsprop(0.01, eps=1e-7, centered=True, momentum=0.9)",
    ),
    (
        "RMSprop(0.01, momentum=0.9)",
        "rmsprop(0.02, eps=1e-7, momentum=0.9, lr_in_momentum=False)",
    ),
    ("Adam(0.01)", f"adam(tunable(0.5), {HAT})"),
    ("Adam(InverseTimeDecay(0.05, 2, 0.5))", f"adam({DECAY}, {HAT})"),
    (
        "Adam(0.01, beta_2=0.8, amsgrad=True)",
        f"amsgrad(0.01, b2=0.8, maximum='raw', {HAT})",
    ),
    (
        "AdamW(0.01, weight_decay=0.1, clipnorm=0.5)",
        f"chain(clip_by_norm(0.5), adamw(0.01, weight_decay=0.1, {HAT}))",
    ),
    ("Adadelta(1.0)", "adadelta(1.0, 0.95, 1e-7)"),
    ("Adagrad(0.05)", "adagrad(0.05)"),
    ("Adamax(0.01)", "adamax(0.01, eps=1e-7, eps_in_max=False)"),
    ("Nadam(0.01)", "nadam(0.01, eps=1e-7, momentum_decay=1.0)"),
    (
        "Ftrl(0.05, l1_regularization_strength=0.01, beta=0.2)",
        "ftrl(0.05, l1=0.01, beta=0.2)",
    ),
    ("Lion(0.01)", "lion(0.01, weight_decay=0.0)"),
    (
        "Lamb(0.01, weight_decay=0.1)",
        "lamb(0.01, eps=1e-7, weight_decay=0.1, decay='before_step')",
    ),
    (
        "Adafactor(0.05, epsilon_1=1e-8)",
        "adafactor(0.05, min_dim_size_to_factor=1, factored_axes='last', "
        "relative_step=True, eps=1e-8)",
    ),
    (
        "Muon(learning_rate=0.05, adam_lr_ratio=0.5)",
        "muon(0.1, adam_learning_rate=0.05, weight_decay=0.004, "
        "adam_weight_decay=0.008, consistent_rms=0.2, eps=0.05e-7, adam_eps=1e-7, "
        "adam_eps_mode='before')",
    ),
    (
        "ScheduleFreeAdamW(0.05, beta_1=0.95, beta_2=0.99, warmup_steps=7)",
        "schedule_free_adamw(0.05, 7, 0.95, 0.99, weight_lr_power=0.0)",
    ),
    (
        "Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4)",
        f"chain(adam(0.01, {HAT}), params_ema(0.9, overwrite_every=4))",
    ),
    ("Adam(0.01, gradient_accumulation_steps=4)", f"accumulate(adam(0.01, {HAT}), 4)"),
    (
        "SGD(0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2, "
        "gradient_accumulation_steps=3)",
        "chain(accumulate(sgd(0.05), 3), "
        "interop.keras.average.params_ema_of_gradients(0.9, 3, 2))",
    ),
    *(
        (text, re.sub(r"\b([A-Z])", r"interop.keras.\1", text))
        for text in (
            f"MultiOptimizer({GROUPED})",
            "LossScaleOptimizer(RMSprop(0.01, momentum=0.9), initial_scale=4.0, "
            "dynamic_growth_steps=4)",
            # Keras's own loses Nadam's product of momenta inside of a loss scale.
            f"LossScaleOptimizer(MultiOptimizer({GROUPED.replace('Na', 'A')}), 2.0, 7)",
        )
    ),
]
TORCH = [
    ("SGD(lr=0.05)", "sgd(0.05)"),
    (
        "SGD(lr=0.05, momentum=0.9, dampening=0.5)",
        "sgd(0.05, 0.9, dampening=0.5)",
    ),
    (
        "SGD(lr=0.05, momentum=0.9, nesterov=True)",
        "sgd(0.01, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    (
        "Adam(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adam(tunable(0.5)))",
    ),
    (
        "Adam(lr=0.01, betas=(0.9, 0.8), amsgrad=True)",
        "amsgrad(0.01, b2=0.8, maximum='raw')",
    ),
    ("AdamW(lr=0.01)", "adamw(0.01, weight_decay=0.01)"),
    ("NAdam(lr=0.01)", "nadam(0.01, momentum_decay=0.004)"),
    ("RAdam(lr=0.01)", "radam(0.01, eps_mode='before')"),
    ("Adamax(lr=0.01)", "adamax(0.01)"),
    ("Adagrad(lr=0.05)", "adagrad(0.05, 0.0, 1e-10, eps_in_sqrt=False)"),
    ("Adadelta(lr=1.0)", "adadelta(1.0)"),
    (
        "RMSprop(lr=0.01, alpha=0.9, momentum=0.9, centered=True)",
        "rmsprop(0.01, eps_in_sqrt=False, centered=True, momentum=0.9, "
        "lr_in_momentum=False)",
    ),
    ("Rprop(lr=0.01)", "rprop(0.01)"),
    ("ASGD(lr=0.05, lambd=0.1, t0=3)", "asgd(0.05, 0.1, t0=3)"),
    (
        "Adafactor(lr=0.05)",
        "adafactor(0.05, min_dim_size_to_factor=1, factored_axes='last', "
        "relative_step=True, eps_mode='clamp', eps=None)",
    ),
    (
        "Muon(lr=(setattr(torch.Tensor, 'bfloat16', torch.Tensor.clone) or 0.05))",
        "muon(0.05, weight_decay=0.1, axes='oi')",
    ),
]
ROWS = [Row("keras", *pair) for pair in KERAS] + [Row("torch", *p) for p in TORCH]


def rows_of(library):
    """The rows against this library."""
    return [row for row in ROWS if row.library == library]


def turned(row, name, array):
    """The parameter, or gradient, as the library has it."""
    return array.T if row.transposed and name == "kernel" else array


class Keras:
    """An optimizer of Keras on the problem."""

    def __init__(self, row, params):
        import keras

        self.row, self.ops = row, keras.ops
        self.variables = [keras.Variable(params[n], name=n) for n in row.leaves]
        names = vars(keras.optimizers) | vars(keras.optimizers.schedules)
        self.optimizer = eval(row.oracle, names)

    def step(self, i):
        """One step."""
        grads = [
            self.ops.convert_to_tensor(GRADS[n][i].astype("float32"))
            for n in self.row.leaves
        ]
        if "LossScale" not in self.row.oracle:
            self.optimizer.apply(grads, self.variables)
            return
        # Its apply works in a compiled step only, or like this.
        if not self.optimizer.built:
            self.optimizer.build(self.variables)
        kept = self.optimizer.variables
        given = [v.value for v in kept], grads, [v.value for v in self.variables]
        params, new = self.optimizer.stateless_apply(*given)
        for v, x in zip([*self.variables, *kept], [*params, *new], strict=True):
            v.assign(x)

    def kept(self):
        """What the optimizer holds."""
        return {str(i): np.array(v) for i, v in enumerate(self.optimizer.variables)}

    def load(self, kept):
        """Go on from what an optimizer held."""
        self.optimizer.build(self.variables)
        weights = [kept[str(i)] for i in range(len(kept))]
        assert len(weights) == len(self.optimizer.variables)
        if "Optimizer(" in self.row.oracle:
            # Of a loss scale set_weights sets its own only, and fails where a
            # MultiOptimizer has one that is for no variable.
            self.optimizer.load_own_variables(kept)
        else:
            self.optimizer.set_weights(weights)

    def params(self):
        """The parameters."""
        return {
            n: np.array(v) for n, v in zip(self.row.leaves, self.variables, strict=True)
        }


class Torch:
    """An optimizer of torch on the problem."""

    def __init__(self, row, params):
        import torch

        self.row, self.torch = row, torch
        self.leaves = [
            torch.tensor(turned(row, n, params[n]).astype("float32").copy())
            for n in row.leaves
        ]
        name = row.oracle.partition("(")[0]

        def made(**options):
            return getattr(torch.optim, name)(self.leaves, **options)

        self.optimizer = eval(row.oracle, {name: made, "torch": torch})

    def step(self, i):
        """One step."""
        for n, p in zip(self.row.leaves, self.leaves, strict=True):
            g = turned(self.row, n, GRADS[n][i]).astype("float32")
            p.requires_grad_()
            p.grad = self.torch.tensor(g.copy())
        self.optimizer.step()

    def kept(self):
        """What the optimizer holds."""
        found = self.optimizer.state_dict()
        state = {
            f"{i}/{key}": np.array(x)
            for i, entry in found["state"].items()
            for key, x in entry.items()
            if x is not None
        }
        return state | {"lr": np.array(found["param_groups"][0]["lr"])}

    def load(self, kept):
        """Go on from what an optimizer held."""
        like = self.optimizer.state_dict()
        like["state"] = {}
        for key, x in kept.items():
            if key != "lr":
                i, name = key.split("/")
                entry = like["state"].setdefault(int(i), {})
                entry[name] = self.torch.tensor(x)
        like["param_groups"][0]["lr"] = float(kept["lr"])
        self.optimizer.load_state_dict(like)

    def params(self):
        """The parameters, as they are here."""
        return {
            n: turned(self.row, n, p.detach().numpy())
            for n, p in zip(self.row.leaves, self.leaves, strict=True)
        }


RUNNERS = {"keras": Keras, "torch": Torch}


def run(library, path):
    """Twelve steps of every row, with what is held in the middle."""
    found = {}
    for row in rows_of(library):
        runner = RUNNERS[library](row, {n: p.astype("f4") for n, p in PARAMS.items()})
        for i in range(STEPS):
            runner.step(i)
            if i + 1 == HALF:
                kept = {f"{row.oracle}: {k}": x for k, x in runner.kept().items()}
                found |= kept | {f"{row.oracle}= half": flat(runner.params())}
        found[f"{row.oracle}= end"] = flat(runner.params())
    np.savez_compressed(path, **found)


def resume(library, source, path):
    """The last three steps of every row, from the parameters and what is held there."""
    with np.load(source) as file:
        given = dict(file)
    found = {}
    for number, row in enumerate(rows_of(library)):
        params = {n: given[f"{number}= {n}"] for n in row.leaves}
        runner = RUNNERS[library](row, params)
        runner.load(held(given, number))
        for i in range(MIDDLE, STEPS):
            runner.step(i)
        found[str(number)] = flat(runner.params())
    np.savez(path, **found)


def held(found, key):
    """What an optimizer held, of everything in a file."""
    prefix = f"{key}: "
    return {k.removeprefix(prefix): x for k, x in found.items() if k.startswith(prefix)}


def oracle(mode, library, *paths):
    """Run this file in a process of its own."""
    result_of("states", mode, library, *map(str, paths), x64=False)


def main(arguments):
    """Renew the golden numbers."""
    if arguments[:1] == ["--run"]:
        mode, library, *paths, result = arguments[1:]
        {"run": run, "resume": resume}[mode](library, *paths)
        np.save(result, 0)
        return
    golden = {}
    for library in LIBRARIES:
        oracle("run", library, GOLDEN)
        with np.load(GOLDEN) as file:
            golden |= {f"{library}|{k}": x for k, x in file.items()}
    golden["versions"] = np.array([f"{x} {version(x)}" for x in LIBRARIES])
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
