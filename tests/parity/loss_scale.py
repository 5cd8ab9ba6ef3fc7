"""THE table of loss scales: what the real ones do, step by step.

`python -m tests.parity.loss_scale` runs them and keeps in loss_scale.npz, for every
step: the scale and the count of finite steps after it, and the unscaled gradients (zero
where the step is skipped). Keras 2 is not to be had any more; its rule is written out.
"""

import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .process import result_of


GOLDEN = Path(__file__).with_name("loss_scale.npz")
LIBRARIES = ("keras", "torch", "flax", "jmp", "keras2")
STEPS = 40
RNG = np.random.default_rng(0)
# Of three parameters; no product with a scale of float32 overflows.
GRADS = (RNG.normal(size=(STEPS, 3)) * [0.1, 1e-4, 1e-7]).astype(np.float32)
FAULTS = {
    "none": "",
    "few": "....n......i....n.n.........b..........n",
    "streaks": "..nnn...iiii.....bnbnbn.n.n.n.....nnnnnn",
    "all": "n" * STEPS,
}


@dataclass(frozen=True)
class Row:
    """The first scale, the growth interval, and where the faults are."""

    init_scale: float
    growth_interval: int
    faults: str

    def __str__(self):
        return f"{self.init_scale:g}, {self.growth_interval}, {self.faults}"


ROWS = [
    Row(init, interval, faults)
    for init, interval in ((2.0**15, 3), (2.0**16, 1), (1000.0, 3))
    for faults in ("none", "few", "streaks")
]
# Keras and torch have no floor, and Keras no ceiling.
LOW = [Row(8.0, 3, "streaks"), Row(2.0**20, 1, "all")]
HIGH = [Row(2.0**124, 3, "none"), Row(2.0**126, 1, "few"), Row(1e38, 1, "few")]


def rows_of(library):
    """The rows that a library stays finite in."""
    high = HIGH if library != "keras" else []
    tiny = [Row(2.0**-100, 1, "all")] if library == "flax" else []
    return [*ROWS, *LOW, *high, *tiny]


def gradients(row):
    """The gradients of the loss, with its faults."""
    grads = GRADS.copy()
    for t, fault in enumerate(FAULTS[row.faults]):
        if fault in "nb":
            grads[t, t % 3] = np.nan
        if fault in "ib":
            grads[t, (t + 1) % 3] = np.inf * (-1) ** t
    return grads


def run_keras(row):
    """Keras 3, whose stateless form is the one that works with JAX."""
    import jax
    import jax.numpy as jnp
    import keras

    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), row.init_scale, row.growth_interval
    )
    start = jnp.zeros(3)
    optimizer.build([keras.Variable(start)])
    names = [v.path.split("/")[-1] for v in optimizer.variables]
    variables = [v.value for v in optimizer.variables]
    scale, count = names.index("dynamic_scale"), names.index("step_counter")
    step = jax.jit(lambda own, g: optimizer.stateless_apply(own, [g], [start]))
    for g in gradients(row):
        (end,), variables = step(variables, jnp.asarray(g) * variables[scale])
        yield variables[scale], variables[count], -end


def run_torch(row):
    """GradScaler on the CPU, in a training loop."""
    import torch

    scaler = torch.amp.GradScaler(
        "cpu", init_scale=row.init_scale, growth_interval=row.growth_interval
    )
    for g in gradients(row):
        p = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.SGD([p], lr=1.0)
        scaler.scale((p * torch.tensor(g)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        yield scaler.get_scale(), scaler._get_growth_tracker(), -p.detach()


def run_flax(row):
    """DynamicScale."""
    import jax.numpy as jnp
    from flax.training.dynamic_scale import DynamicScale

    now = DynamicScale(growth_interval=row.growth_interval, scale=row.init_scale)
    now = now.replace(scale=jnp.float32(row.init_scale))
    for g in gradients(row):
        found = now.value_and_grad(lambda p, g=g: jnp.sum(p * g))(jnp.zeros(3))
        now = found.dynamic_scale
        yield now.scale, now.fin_steps, found.grad if found.finite else np.zeros(3)


def run_jmp(row):
    """DynamicLossScale."""
    import jax.numpy as jnp
    import jmp

    now = jmp.DynamicLossScale(jnp.float32(row.init_scale), period=row.growth_interval)
    for g in gradients(row):
        unscaled = now.unscale(now.scale(jnp.asarray(g)))
        finite = jmp.all_finite(unscaled)
        now = now.adjust(finite)
        yield now.loss_scale, now.counter, unscaled if finite else np.zeros(3)


def run_keras2(row):
    """The rule of tf.keras.mixed_precision.LossScaleOptimizer, TensorFlow 2.4 to 2.15.

    The scale is doubled only if that is finite, and halved down to 1.
    """
    scale, good, largest = row.init_scale, 0, float(np.finfo(np.float32).max)
    for g in gradients(row):
        if np.isfinite(g).all():
            update = np.float32(g * np.float32(scale)) / np.float32(scale)
            good += 1
            if good >= row.growth_interval:
                good = 0
                if 2 * scale <= largest:
                    scale = 2 * scale
        else:
            good, update = 0, np.zeros(3)
            scale = max(scale / 2, 1.0)
        yield scale, good, update


def run(library):
    """An array (rows, steps, 5): the scale, the count and three gradients."""
    runner = globals()[f"run_{library}"]
    return np.asarray(
        [
            [np.hstack([s, c, np.asarray(u)]) for s, c, u in runner(row)]
            for row in rows_of(library)
        ],
        np.float32,
    )


def oracle(library):
    """The same, in a process of its own."""
    return result_of("loss_scale", library, x64=False)


def main(arguments):
    """Renew the golden numbers."""
    if arguments[:1] == ["--run"]:
        library, path = arguments[1:]
        np.save(path, run(library))
        return
    golden = {}
    for library in LIBRARIES:
        golden[f"{library}.rows"] = np.array([str(row) for row in rows_of(library)])
        if library != "keras2":
            golden[f"{library}.versions"] = np.array(f"{library} {version(library)}")
        golden[library] = oracle(library)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
