"""THE table of plateaus: which setting is whose ReduceLROnPlateau, on which metrics.

`python -m tests.parity.plateau` runs the real ones and keeps the learning rates that
they set in plateau.npz, like schedules.py does. It begins at 1.
"""

import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .process import result_of


GOLDEN = Path(__file__).with_name("plateau.npz")
LIBRARIES = ("keras", "torch", "optax")


def metrics():
    """What a validation may say, 60 epochs long."""
    epochs = np.arange(60)
    noise = np.random.default_rng(0).normal(size=60)
    falling = 1 / (1 + epochs)
    with_nan = np.where(epochs % 5 == 3, np.nan, falling)
    with_nan[20:40] = np.nan
    return {
        "constant": np.ones(60),
        "falling": falling,
        "noisy": 2 * np.exp(-epochs / 10) + 0.2 * noise + 1,
        "random": 1 + 0.1 * noise,
        "stairs": 1.0 - 0.1 * (epochs // 13),
        "slow": 1.0 - 0.6e-4 * epochs,  # less than the usual threshold each time
        "below zero": -np.exp(-epochs / 10) - 1 + 0.1 * noise,
        "with NaN": with_nan,
        "infinite": np.where(epochs < 8, np.inf, falling),
    }


METRICS = metrics()


@dataclass(frozen=True)
class Row:
    """One setting, of which the metrics that are named in `of` are taken."""

    library: str
    oracle: str
    jopt: str
    of: tuple[str, ...] = tuple(METRICS)

    @property
    def recipe(self):
        """What the oracle's numbers depend on."""
        return f"{self.oracle} | {', '.join(self.of)}"


def keras(oracle, jopt=""):
    """A row against Keras; jopt's text without what makes the rule Keras's."""
    # Keras takes a first value for good, even an infinite one.
    of = tuple(name for name in METRICS if name != "infinite")
    return Row("keras", oracle, f'{jopt}, rtol=0.0, rule="keras"'.lstrip(", "), of)


def torch(oracle, jopt=""):
    """A row against torch; jopt's text without what makes the rule torch's."""
    return Row("torch", oracle, f'{jopt}, rule="torch", eps=1e-8'.lstrip(", "))


def optax(oracle):
    """A row against optax, with the very same text."""
    return Row("optax", oracle, oracle)


ROWS = (
    keras("", "atol=1e-4"),
    keras("factor=0.5, patience=3", "factor=0.5, patience=3, atol=1e-4"),
    keras(
        "factor=0.5, patience=3, cooldown=4",
        "factor=0.5, patience=3, cooldown=4, atol=1e-4",
    ),
    keras("factor=0.3, patience=0", "factor=0.3, patience=0, atol=1e-4"),
    keras(
        "patience=1, cooldown=1, min_lr=1e-3",
        "patience=1, cooldown=1, min_scale=1e-3, atol=1e-4",
    ),
    keras(
        "factor=0.5, patience=2, min_delta=0.05",
        "factor=0.5, patience=2, atol=0.05",
    ),
    keras(
        'factor=0.5, patience=2, cooldown=2, mode="max"',
        'factor=0.5, patience=2, cooldown=2, mode="max", atol=1e-4',
    ),
    torch(""),
    torch("factor=0.5, patience=3", "factor=0.5, patience=3"),
    torch("factor=0.5, patience=3, cooldown=4", "factor=0.5, patience=3, cooldown=4"),
    torch("factor=0.3, patience=0, cooldown=1", "factor=0.3, patience=0, cooldown=1"),
    torch("patience=1, min_lr=1e-3", "patience=1, min_scale=1e-3"),
    torch("factor=0.01, patience=0", "factor=0.01, patience=0"),  # down to eps
    torch(
        'factor=0.5, patience=2, threshold=0.05, threshold_mode="abs"',
        "factor=0.5, patience=2, rtol=0.0, atol=0.05",
    ),
    torch(
        'factor=0.5, patience=2, cooldown=2, mode="max"',
        'factor=0.5, patience=2, cooldown=2, mode="max"',
    ),
    torch(
        'factor=0.5, patience=2, threshold=0.05, threshold_mode="abs", mode="max"',
        'factor=0.5, patience=2, rtol=0.0, atol=0.05, mode="max"',
    ),
    optax(""),
    optax("0.5, 3"),
    optax("0.5, 3, 1e-4, 0.0, 4"),
    optax("0.3, 1, 0.0, 0.05, 1, 1, 0.01"),
    optax("0.5, 2, 0.01, 0.01, accumulation_size=3"),
    optax("0.5, 1, cooldown=2, accumulation_size=4"),
)


def rows_of(library):
    """The rows against this library, in the order of its golden numbers."""
    return tuple(row for row in ROWS if row.library == library)


def run_keras(options, values):
    """What the callback does to a model that has nothing but a learning rate."""
    import types

    import keras

    model = types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=1.0))
    options.setdefault("mode", "min")
    callback = keras.callbacks.ReduceLROnPlateau(**options)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": value})
        yield model.optimizer.learning_rate


def run_torch(options, values):
    """The learning rates that the scheduler sets."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    for value in values:
        scheduler.step(value)
        yield optimizer.param_groups[0]["lr"]


def run_optax(tx, values):
    """What an update of 1 becomes."""
    import jax
    import jax.numpy as jnp

    one = jnp.ones(())

    def step(state, value):
        update, state = tx.update(one, state, value=value)
        return state, update

    return jax.lax.scan(step, tx.init(one), jnp.asarray(values))[1]


def run(row):
    """The learning rates of a row, one metric after the other."""
    if row.library == "optax":
        from optax import contrib

        tx = eval(f"reduce_on_plateau({row.oracle})", dict(vars(contrib)))
        return [x for name in row.of for x in run_optax(tx, METRICS[name])]
    runner = {"keras": run_keras, "torch": run_torch}[row.library]
    options = eval(f"dict({row.oracle})")
    return [x for name in row.of for x in runner(dict(options), METRICS[name])]


def oracle(library):
    """The learning rates of all of a library's rows."""
    return result_of("plateau", library, x64=True)


def by_row(library, values):
    """The learning rates of each row, by metric."""
    ends = np.cumsum([60 * len(row.of) for row in rows_of(library)])
    parts = np.split(values, ends[:-1])
    return {
        row: dict(zip(row.of, part.reshape(-1, 60), strict=True))
        for row, part in zip(rows_of(library), parts, strict=True)
    }


def main(arguments):
    """Renew the golden numbers of the named libraries, of all without a name."""
    if arguments[:1] == ["--run"]:
        library, path = arguments[1:]
        values = [np.asarray(run(row), float) for row in rows_of(library)]
        np.save(path, np.concatenate(values))
        return
    golden = dict(np.load(GOLDEN)) if arguments else {}
    for library in arguments or LIBRARIES:
        golden[f"{library}.rows"] = np.array([r.recipe for r in rows_of(library)])
        golden[f"{library}.versions"] = np.array(f"{library} {version(library)}")
        golden[library] = oracle(library)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
