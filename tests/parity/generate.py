"""Run the real Keras, torch and optax on the problem and keep what they answer.

`python -m tests.parity.generate` writes golden.npz; with library names behind it, only
those libraries' numbers are renewed. The file holds the oracle texts of each library's
rows and, per library and float width, an array (rows, steps, parameters).
"""

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .problem import GRADS, PARAMS, STEPS, flat
from .process import result_of
from .rows import LIBRARIES, WIDTHS, rows_of


GOLDEN = Path(__file__).with_name("golden.npz")


def run_keras(row, width):
    """Yield the parameters after every step of a Keras optimizer."""
    import keras

    keras.config.set_floatx(width)
    variables = [keras.Variable(p, dtype=width, name=n) for n, p in PARAMS.items()]
    names = vars(keras.optimizers) | vars(keras.optimizers.schedules)
    optimizer = eval(row.oracle, names)
    for step in range(STEPS):
        grads = [keras.ops.convert_to_tensor(GRADS[n][step], width) for n in PARAMS]
        optimizer.apply(grads, variables)
        yield flat(dict(zip(PARAMS, variables, strict=True)))


def run_torch(row, width):
    """Yield the parameters after every step of a torch optimizer and its scheduler."""
    import torch

    # torch keeps scalars such as NAdam's mu_product in the default dtype.
    dtype = getattr(torch, width)
    torch.set_default_dtype(dtype)
    params = {n: torch.tensor(p, dtype=dtype) for n, p in PARAMS.items()}
    classes = vars(torch.optim)
    leaves = list(params.values())
    name = row.oracle.partition("(")[0]
    optimizer = eval(row.oracle, {name: partial(classes[name], leaves)})
    scheduler = None
    if row.scheduler:
        lambda_lr = partial(torch.optim.lr_scheduler.LambdaLR, optimizer)
        scheduler = eval(row.scheduler, {"LambdaLR": lambda_lr})
    for step in range(STEPS):
        for n, p in params.items():
            p.grad = torch.tensor(GRADS[n][step], dtype=dtype)
        optimizer.step()
        if scheduler:
            scheduler.step()
        yield flat(params)


def run_optax(row, width):
    """Yield the parameters after every step of an optax transformation."""
    import jax.numpy as jnp
    import optax

    params = {n: jnp.asarray(p, width) for n, p in PARAMS.items()}
    tx = eval(row.oracle, dict(vars(optax)))
    state = tx.init(params)
    for step in range(STEPS):
        grads = {n: jnp.asarray(GRADS[n][step], width) for n in PARAMS}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        yield flat(params)


RUNNERS = {"keras": run_keras, "torch": run_torch, "optax": run_optax}


def oracle(library, width):
    """Trajectories of all of a library's rows: an array (rows, steps, parameters)."""
    return result_of("generate", library, width, x64=width == "float64")


def main(arguments):
    """Renew the golden numbers of the named libraries, of all without a name."""
    if arguments[:1] == ["--run"]:
        library, width, path = arguments[1:]
        rows = rows_of(library)
        np.save(path, [list(RUNNERS[library](row, width)) for row in rows])
        return
    golden = dict(np.load(GOLDEN)) if arguments else {}
    for library in arguments or LIBRARIES:
        golden[f"{library}.rows"] = np.array([r.recipe for r in rows_of(library)])
        packages = dict.fromkeys([library, "jax", "numpy"])
        golden[f"{library}.versions"] = np.array(
            [f"{p} {version(p)}" for p in packages]
        )
        for width in WIDTHS:
            golden[f"{library}.{width}"] = oracle(library, width)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
