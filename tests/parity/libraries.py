"""Run the real libraries on the problem: what they answer is the oracle of a row."""

import contextlib
import importlib
import inspect
import json
import sys
from dataclasses import asdict
from functools import partial

import numpy as np

from .problem import GRADS, HESSIAN, PARAMS, STEPS, VALUES, flat
from .process import result_of
from .row import Row


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


def oracle(library, width, rows):
    """A library's trajectories: an array (steps, parameters) for each row.

    One process runs all of them: most of its time goes into importing the library.
    """
    text = json.dumps([asdict(row) for row in rows])
    found = result_of("libraries", library, width, x64=width == "float64", text=text)
    return [x[:, : row.size] for row, x in zip(rows, found, strict=True)]


def trajectories(library, width, rows):
    """What `oracle` gives, computed here, padded to one length."""
    run = RUNNERS.get(library, run_torch)
    runs = [list(run(row, width)) for row in rows]
    return padded(runs)


def padded(runs):
    """One array (rows, steps, parameters) of trajectories of different lengths."""
    most = max(x.size for steps in runs for x in steps)
    return np.array([[np.pad(x, (0, most - x.size)) for x in steps] for steps in runs])


def main(arguments):
    """Run the rows on standard input, for `oracle`."""
    (_, library, width, path) = arguments
    rows = [Row(**row) for row in json.load(sys.stdin)]
    with open(path, "wb") as file:
        np.save(file, trajectories(library, width, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
