"""The problem of the eigenbasis methods, and the runs of their authors' code on it.

Its gradients have statistics with separated eigenvalues: eigenvectors of equal ones are
arbitrary, and so is all that follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt


GOLDEN = Path(__file__).parent / "golden" / "eigen_methods.npz"
SHAPES = {"wide": (5, 4), "square": (6, 6), "conv": (4, 3, 2, 2), "bias": (7,)}
STEPS = 40
SHOWN = [0, 1, 2, 3, 9, 10, 11, 19, 20, 39]  # the recorded steps
AXES = {"wide": "oi", "square": "oi", "conv": "oiii", "bias": None}


@dataclass(frozen=True)
class Run:
    """One run of the authors' code, and the call that equals it."""

    library: str
    oracle: dict[str, Any]
    jopt: str
    leaves: tuple[str, ...]


MATRICES = ("wide", "square")
RUNS = {
    **{
        f"soap-{every}": Run(
            "soap",
            {"lr": 0.05, "precondition_frequency": every, **more},
            f"soap(0.05, precondition_frequency={every}, {mine}hidden=True, "
            "staggered=False, axes=AXES, merge_axes=False)",
            (*MATRICES, "conv", "bias") if every == 3 else MATRICES,
        )
        for every, more, mine in [
            (1, {}, ""),
            (
                3,
                {"shampoo_beta": 0.8, "weight_decay": 0.1},
                "shampoo_beta=0.8, weight_decay=0.1, ",
            ),
            (10, {"betas": (0.8, 0.9), "eps": 1e-3}, "b1=0.8, b2=0.9, eps=1e-3, "),
        ]
    },
    # The larger side of 5 is not rotated.
    "soap-max-dim": Run(
        "soap",
        {"lr": 0.05, "max_precond_dim": 4, "precondition_frequency": 3},
        "soap(0.05, max_dim=4, precondition_frequency=3, hidden=True, "
        "staggered=False, axes=AXES)",
        ("wide",),
    ),
    **{
        f"kl-soap-{every}": Run(
            "kl",
            {"lr": 0.05, "precondition_frequency": every, "using_klsoap": True},
            f"kl_soap(0.05, precondition_frequency={every}, hidden=True, "
            "staggered=False, axes=AXES, merge_axes=False)",
            MATRICES,
        )
        for every in (1, 10)
    },
    **{
        f"kl-shampoo-{every}": Run(
            "kl",
            {"lr": 0.05, "precondition_frequency": every, "weight_decay": 0.1},
            f"kl_shampoo(0.05, weight_decay=0.1, precondition_frequency={every}, "
            "hidden=True, staggered=False, axes=AXES, merge_axes=False)",
            MATRICES,
        )
        for every in (3,)
    },
    "splus": Run(
        "splus",
        {"lr": 0.1, "inverse_every": 7, "b2": 0.9, "weight_decay": 0.1},
        "splus(0.1, b2=0.9, weight_decay=0.1, precondition_frequency=7, hidden=True, "
        "staggered=False, axes=AXES)",
        (*MATRICES, "bias"),
    ),
    # Meta's code keeps the learning rate in float32: a power of two is exact there.
    **{
        f"shampoo-{name}": Run(
            "shampoo",
            {"lr": 0.0625, "weight_decay": 0.1, **theirs},
            f"shampoo(0.0625, weight_decay=0.1, {mine}relative_eps=0.0, hidden=True, "
            "staggered=False, axes=AXES, merge_axes=False)",
            leaves,
        )
        for name, theirs, mine, leaves in [
            (
                "sum",
                {},
                "b2=1.0, graft=None, precondition_frequency=1, ",
                ("wide", "conv"),
            ),
            (
                "adam",
                {
                    "betas": (0.9, 0.95),
                    "graft": "adam",
                    "epsilon": 1e-3,
                    "precondition_frequency": 3,
                    "start_preconditioning_step": 5,
                },
                "b2=0.95, graft_eps=1e-10, eps=1e-3, precondition_frequency=3, "
                "start_step=5, ",
                MATRICES,
            ),
            (
                "rmsprop",
                {
                    "betas": (0.0, 0.9),
                    "graft": "rmsprop",
                    "p": 2,
                    "use_bias_correction": False,
                    "max_preconditioner_dim": 3,
                },
                "b1=0.0, b2=0.9, graft='rmsprop', graft_b2=0.95, graft_eps=1e-10, "
                "p=2.0, bias_correction=False, block_size=3, "
                "precondition_frequency=1, ",
                ("square",),
            ),
            *(
                (
                    name,
                    {"betas": (0.9, 0.9), **theirs},
                    f"b2=0.9, graft=None, precondition_frequency=1, {mine}, ",
                    ("square",),
                )
                for name, theirs, mine in [
                    (  # two of six directions are left out
                        "pseudo-inverse",
                        {"epsilon": 0.0, "rank_rtol": 0.05},
                        "eps=0.0, rank_rtol=0.05",
                    ),
                    (
                        "newton",
                        {"epsilon": 1e-3, "newton": True},
                        "eps=1e-3, root_method='newton'",
                    ),
                    (
                        "float32",
                        {"epsilon": 1e-3, "dtype": "float32"},
                        "eps=1e-3, precond_dtype='float32'",
                    ),
                ]
            ),
        ]
    },
    **{
        f"shampoo-{graft}": Run(
            "shampoo",
            {"lr": 0.0625, "betas": (0.9, 0.9), "graft": graft},
            f"shampoo(0.0625, b2=0.9, graft='{graft}', graft_eps=1e-10, "
            "precondition_frequency=1, relative_eps=0.0, hidden=True, "
            "staggered=False, axes=AXES)",
            ("wide",),
        )
        for graft in ("sgd", "adagrad")
    },
}


def parameters() -> dict[str, np.ndarray]:
    """The parameters before the first step."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients() -> Iterator[dict[str, np.ndarray]]:
    """The gradients of each step: noise of another size along each axis's rows."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        grads = {}
        for name, shape in SHAPES.items():
            g = rng.normal(size=shape)
            for axis, n in enumerate(shape):
                sizes = 1.5 ** -np.arange(n).reshape(
                    [-1] + [1] * (len(shape) - axis - 1)
                )
                g = g * sizes
            grads[name] = g
        yield grads


def ours(run: Run) -> np.ndarray:
    """The parameters after each step of jopt's call, in float64."""
    with jax.enable_x64(True):
        axes = {n: AXES[n] for n in run.leaves}
        tx = eval(f"jopt.{run.jopt}", {"jopt": jopt, "AXES": axes})
        params = {n: jnp.asarray(parameters()[n]) for n in run.leaves}
        grads = [{n: jnp.asarray(g[n]) for n in run.leaves} for g in gradients()]

        def body(carry: Any, g: Any) -> Any:
            params, state = carry
            updates, state = tx.update(g, state, params)
            params = jopt.apply_updates(params, updates)
            return (params, state), params

        def whole(params: Any, grads: Any) -> Any:
            return jax.lax.scan(body, (params, tx.init(params)), grads)[1]

        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *grads)
        found = jax.jit(whole)(params, stacked)
        flat = [np.asarray(found[n]).reshape(STEPS, -1) for n in run.leaves]
        return np.concatenate(flat, axis=1)


def decomposing(tx: Any, params: Any) -> tuple[set[str], set[str], str]:
    """The decompositions outside and inside of conditionals, and the compiled text."""
    state = jax.eval_shape(tx.init, params)
    traced = jax.jit(tx.update).trace(params, state, params)
    found: dict[bool, set[str]] = {False: set(), True: set()}

    def walk(jaxpr: Any, inside: bool) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in ("eigh", "qr", "householder_product", "geqrf"):
                found[inside].add(eqn.primitive.name)
            deeper = inside or eqn.primitive.name == "cond"
            for value in jax.tree.leaves(list(eqn.params.values())):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner, deeper)

    walk(traced.jaxpr.jaxpr, False)
    return found[False], found[True], traced.lower().compile().as_text()
