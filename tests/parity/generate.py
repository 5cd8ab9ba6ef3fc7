"""Run the real libraries on the problem and keep what they answer.

`python -m tests.parity.generate` writes golden/<group>.npz for every group of rows;
with names of groups behind it, for those. A file holds per library the oracle texts,
the versions, and per float width an array (rows, steps, parameters).
"""

import contextlib
import importlib
import inspect
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .problem import GRADS, HESSIAN, PARAMS, STEPS, VALUES, flat
from .process import result_of
from .rows import GROUPS, WIDTHS


GOLDEN = Path(__file__).with_name("golden")
DEVIATIONS = GOLDEN / "deviations.json"  # of jopt, measured by tests.tools.table


def run_keras(row, width):
    """Yield the parameters after every step of a Keras optimizer."""
    import keras

    keras.config.set_floatx(width)
    variables = [keras.Variable(PARAMS[n], dtype=width, name=n) for n in row.leaves]
    names = vars(keras.optimizers) | vars(keras.optimizers.schedules)
    optimizer = eval(row.oracle, names)
    for step in range(STEPS):
        grads = [keras.ops.convert_to_tensor(GRADS[n][step], width) for n in row.leaves]
        optimizer.apply(grads, variables)
        yield flat(dict(zip(row.leaves, variables, strict=True)))


def run_torch(row, width):
    """Yield the parameters after every step of an optimizer for torch."""
    import torch

    # torch keeps scalars such as NAdam's mu_product in the default dtype.
    dtype = getattr(torch, width)
    torch.set_default_dtype(dtype)
    params = {n: torch.tensor(PARAMS[n], dtype=dtype) for n in row.leaves}
    leaves = list(params.values())
    library = torch.optim if row.library == "torch" else import_of(row)
    name = row.oracle.partition("(")[0]
    made = partial(getattr(library, name), leaves)
    optimizer = eval(row.oracle, vars(library) | {name: made, "torch": torch})
    if hasattr(optimizer, "train"):
        optimizer.train()
    scheduler = None
    if row.scheduler:
        lambda_lr = partial(torch.optim.lr_scheduler.LambdaLR, optimizer)
        scheduler = eval(row.scheduler, {"LambdaLR": lambda_lr})
    told = {}
    if "hessian" in inspect.signature(optimizer.step).parameters:
        told = {"hessian": [torch.tensor(HESSIAN[n], dtype=dtype) for n in params]}
    for step in range(STEPS):
        for n, p in params.items():
            p.requires_grad_()
            p.grad = torch.tensor(GRADS[n][step], dtype=dtype)
        optimizer.step(**told)
        if scheduler:
            scheduler.step()
        yield flat({n: p.detach() for n, p in params.items()})


def import_of(row):
    """The module of a row, whatever it prints while it is imported."""
    with contextlib.redirect_stdout(None):
        return importlib.import_module(row.library)


def run_optax(row, width):
    """Yield the parameters after every step of an optax transformation."""
    import jax.numpy as jnp
    import optax
    import optax.contrib

    params = {n: jnp.asarray(PARAMS[n], width) for n in row.leaves}
    tx = eval(row.oracle, vars(optax) | vars(optax.contrib))
    tx = optax.with_extra_args_support(tx)
    state = tx.init(params)
    for step in range(STEPS):
        grads = {n: jnp.asarray(GRADS[n][step], width) for n in row.leaves}
        value = jnp.asarray(VALUES[step], width)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        yield flat(params)


RUNNERS = {"keras": run_keras, "optax": run_optax}  # the others are like torch


def libraries(group):
    """The libraries that a group of rows is compared with."""
    return list(dict.fromkeys(row.library for row in GROUPS[group]))


def rows_of(group, library):
    """The rows of a group against this library, in the order of its golden numbers."""
    return [row for row in GROUPS[group] if row.library == library]


def oracle(library, width, groups):
    """A library's trajectories: an array (rows, steps, parameters) for each group."""
    return result_of("generate", library, width, *groups, x64=width == "float64")


def trajectories(group, library, width):
    """What `oracle` gives for a group, computed here."""
    run = RUNNERS.get(library, run_torch)
    runs = [list(run(row, width)) for row in rows_of(group, library)]
    most = max(x.size for steps in runs for x in steps)
    return [[np.pad(x, (0, most - x.size)) for x in steps] for steps in runs]


def main(arguments):
    """Renew the golden numbers of the named groups, of all without a name."""
    if arguments[:1] == ["--run"]:
        library, width, *groups, path = arguments[1:]
        with open(path, "wb") as file:
            np.savez(file, **{g: trajectories(g, library, width) for g in groups})
        return
    for group in arguments or GROUPS:
        golden = {}
        for library in libraries(group):
            rows = rows_of(group, library)
            golden[f"{library}.rows"] = np.array([r.recipe for r in rows])
            packages = dict.fromkeys([rows[0].package or library, "jax", "numpy"])
            golden[f"{library}.versions"] = np.array(
                [f"{p} {version(p)}" for p in packages]
            )
            for width in WIDTHS:
                found = oracle(library, width, [group])
                golden[f"{library}.{width}"] = found[group]
        np.savez_compressed(GOLDEN / f"{group}.npz", **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
