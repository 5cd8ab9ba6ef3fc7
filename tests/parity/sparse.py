"""THE table of row-sparse optimizers: which recipe is whose, given sparse gradients.

`python -m tests.parity.sparse` runs the real ones, in float64, and keeps the table
after every step in sparse.npz. torch's are lazy, Keras's are what dense gradients give.
"""

import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .process import result_of


GOLDEN = Path(__file__).with_name("sparse.npz")
LIBRARIES = ("keras", "torch")
STEPS, N, D = 12, 9, 4
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(N, D))
# Five lookups a step, some of the same row; rows 7 and 8 are never looked up.
IDS = RNG.integers(0, 7, size=(STEPS, 5))
IDS[:, 4] = IDS[:, 1]
GRADS = RNG.normal(size=(STEPS, 5, D)) * np.array([1, 1e-4, 1e-6, 1, 1e-2])[:, None]


@dataclass(frozen=True)
class Row:
    """One optimizer, as the library and as jopt write it."""

    library: str
    oracle: str
    jopt: str


ROWS = [
    Row("torch", "SparseAdam(lr=0.1, eps=1e-6)", "adam(0.1, eps=1e-6, {hat})"),
    Row("torch", "SGD(lr=0.1)", "sgd(0.1)"),
    Row(
        "torch",
        "Adagrad(lr=0.1)",
        "adagrad(0.1, 0.0, eps=1e-10, eps_in_sqrt=False)",
    ),
    Row("keras", "Adam(0.1)", "adam(0.1, eps=1e-7, {hat})"),
    Row(
        "keras",
        "AdamW(0.1, weight_decay=0.1)",
        "adamw(0.1, eps=1e-7, weight_decay=0.1, {hat})",
    ),
    Row("keras", "SGD(0.1, momentum=0.9)", "sgd(0.1, momentum=0.9)"),
    Row("keras", "Adagrad(0.1)", "adagrad(0.1, eps=1e-7)"),
]


def rows_of(library):
    """The rows against this library."""
    return [row for row in ROWS if row.library == library]


def run_keras(row):
    """Yield the table after every step of a Keras optimizer."""
    import jax.numpy as jnp
    import keras
    from jax.experimental.sparse import BCOO

    keras.config.set_floatx("float64")
    variable = keras.Variable(TABLE, dtype="float64")
    optimizer = eval(row.oracle, dict(vars(keras.optimizers)))
    for ids, rows in zip(IDS, GRADS, strict=True):
        own = BCOO((jnp.asarray(rows), jnp.asarray(ids)[:, None]), shape=(N, D))
        optimizer.apply([own], [variable])
        yield np.array(variable)


def run_torch(row):
    """Yield the table after every step of a torch optimizer."""
    import torch

    name, arguments = row.oracle.rstrip(")").split("(")
    table = torch.tensor(TABLE, requires_grad=True)
    optimizer = getattr(torch.optim, name)([table], **eval(f"dict({arguments})"))
    for ids, rows in zip(IDS, GRADS, strict=True):
        own = torch.tensor(ids)[None], torch.tensor(rows)
        table.grad = torch.sparse_coo_tensor(*own, (N, D), check_invariants=True)
        optimizer.step()
        yield table.detach().numpy().copy()


def oracle(library):
    """The tables of a library's rows: an array (rows, steps, N, D)."""
    return result_of("sparse", library, x64=True)


def main(arguments):
    """Renew the golden numbers of the named libraries, of all without a name."""
    if arguments[:1] == ["--run"]:
        library, path = arguments[1:]
        run = {"keras": run_keras, "torch": run_torch}[library]
        np.save(path, [list(run(row)) for row in rows_of(library)])
        return
    golden = dict(np.load(GOLDEN)) if arguments else {}
    for library in arguments or LIBRARIES:
        golden[f"{library}.rows"] = np.array([row.oracle for row in rows_of(library)])
        golden[f"{library}.versions"] = np.array(f"{library} {version(library)}")
        golden[library] = oracle(library)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
