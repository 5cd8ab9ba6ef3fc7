"""torch's own configurations of its optimizers, run in torch and here, in float64.

torch ships with what its tests of optimizers run over, `optim_db`: arguments that an
optimizer takes, arguments that it refuses, and lists of schedulers.
`python -m tests.tools.upstream_torch` prints what came of them as JSON.
"""

from __future__ import annotations

import inspect
import json
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.interop import torch as door
from tests.parity.problem import GRADS, PARAMS, STEPS, VALUES


# torch iterates in bfloat16, whose digits depend on the order in which a product adds.
BFLOAT16 = {"Muon": 1e-4}
SAME = 1e-12
# Better for five steps, then the same: torch's plateaus have a patience of ten.
METRICS = np.maximum(VALUES, VALUES[5])


def leaves(name: str) -> list[str]:
    """The parameters; Muon takes matrices only."""
    return ["kernel"] if name == "Muon" else list(PARAMS)


def theirs(info: Any, kwargs: dict[str, Any], schedulers: Any) -> np.ndarray:
    """The parameters after each step of torch's optimizer."""
    import torch

    params = [torch.tensor(PARAMS[n], requires_grad=True) for n in leaves(info.name)]
    # On a CPU torch has no `capturable`, which changes no number.
    kwargs = {n: x for n, x in kwargs.items() if n != "capturable"}
    optimizer = info.optim_cls(params, **kwargs)
    schedulers = [make(optimizer) for make in schedulers]
    found = []
    for step in range(STEPS):
        for n, p in zip(leaves(info.name), params, strict=True):
            p.grad = torch.tensor(GRADS[n][step])
            if info.only_supports_sparse_grads:  # with all rows, zeros too
                rows = torch.arange(len(p))[None]
                p.grad = torch.sparse_coo_tensor(rows, p.grad, p.shape)
        value = torch.tensor(VALUES[step])
        optimizer.step(*([lambda x=value: x] if info.name == "LBFGS" else []))
        for scheduler in schedulers:
            is_plateau = "Plateau" in type(scheduler).__name__
            scheduler.step(*([METRICS[step]] if is_plateau else []))
        found.append(np.concatenate([p.detach().numpy().ravel() for p in params]))
    return np.array(found)


def ours(info: Any, kwargs: dict[str, Any], schedulers: Any) -> np.ndarray:
    """The same of the door's."""
    params = {n: jnp.asarray(PARAMS[n]) for n in leaves(info.name)}
    tx = transformation(info, kwargs, schedulers)

    def step(carry, given):
        params, state = carry
        grads, value, now = given

        def closure(params):  # with these gradients, and this value everywhere
            moved = jax.tree.map(lambda p: p - jax.lax.stop_gradient(p), params)
            return now + jopt.tree.vdot(grads, moved)

        extra = {"value": value}
        if info.name == "LBFGS":
            extra = {"value": now, "value_fn": closure, "metric": value}
        updates, state = tx.update(grads, state, params, **extra)
        params = jopt.apply_updates(params, updates)
        return (params, state), params

    # What torch's plateau is told after a step, ours is told with the next.
    metrics = jnp.asarray([1e9, *METRICS[:-1]])
    grads = {n: jnp.asarray(GRADS[n]) for n in params}
    run = jax.jit(lambda p, x: jax.lax.scan(step, (p, tx.init(p)), x)[1])
    found = run(params, (grads, metrics, jnp.asarray(VALUES[:STEPS])))
    return np.concatenate([found[n].reshape(STEPS, -1) for n in params], axis=1)


def transformation(info: Any, kwargs: dict[str, Any], schedulers: Any) -> Any:
    """The door's optimizer, with the door's schedulers for its learning rate."""
    make = getattr(door, info.name)
    if info.name == "Muon":
        kwargs = kwargs | {"axes": "oi", "ns_dtype": "bfloat16"}
    if not schedulers:
        return make(**kwargs)
    rate = kwargs.get("lr", inspect.signature(make).parameters["lr"].default)
    # torch's are functions such as `lambda opt: StepLR(opt, 10)`. The door's schedulers
    # take the rate in the optimizer's place, so the same code makes them.
    names = door.lr_scheduler.__all__
    known = {n: getattr(door.lr_scheduler, n) for n in names}
    parts = [types.FunctionType(f.__code__, known) for f in schedulers]
    plateaus = [f for f in parts if "ReduceLROnPlateau" in f.__code__.co_names]
    schedules = [f(rate) for f in parts if f not in plateaus]
    if len(schedules) > 1:
        schedules = [door.lr_scheduler.ChainedScheduler(schedules, rate)]
    tx = make(**(kwargs | {"lr": schedules[0] if schedules else rate}))
    for f in plateaus:  # around it, as in torch
        tx = f(tx)
    return tx


def text(kwargs: dict[str, Any]) -> str:
    """Arguments as they are in a call."""
    return ", ".join(f"{n}={x}" for n, x in kwargs.items())


def scheduler_names(schedulers: Any) -> str:
    """The names of a list of torch's functions that make schedulers."""
    return ", ".join(name for f in schedulers for name in f.__code__.co_names)


def compared(info: Any, kwargs: dict[str, Any], schedulers: Any = ()) -> dict[str, Any]:
    """Whether the door has torch's numbers: "passed" or "failed", and why."""
    if not hasattr(door, info.name):
        return {"outcome": "failed", "why": f"no {info.name}"}
    expected = theirs(info, kwargs, schedulers)
    try:
        found = ours(info, kwargs, schedulers)
    except Exception as error:
        return {"outcome": "failed", "why": f"{type(error).__name__}: {error}"}
    gap = np.max(np.abs(found - expected) / (np.abs(expected) + 1e-3))
    same = gap <= BFLOAT16.get(info.name, SAME)
    why = f"off by {gap:.1e}"
    return {"outcome": "passed" if same else "failed", "why": why, "gap": float(gap)}


def refused(info: Any, case: Any) -> dict[str, Any] | None:
    """Whether the door refuses arguments that torch refuses; None without arguments."""
    case = case.optimizer_error_input
    if case.params is not None or not hasattr(door, info.name):
        return None
    try:
        getattr(door, info.name)(**case.kwargs)
    except (TypeError, ValueError):
        return {"outcome": "passed", "why": ""}
    return {"outcome": "failed", "why": f"{info.name}({text(case.kwargs)}) is made"}


def cases() -> list[dict[str, Any]]:
    """Every configuration of `optim_db`, and what came of it."""
    import torch
    from torch.testing._internal.common_optimizers import optim_db

    torch.set_default_dtype(torch.float64)  # of scalars such as NAdam's mu_product
    found = []

    def add(info, kind, name, result):
        if result is not None:
            case = {"optimizer": info.name, "kind": kind, "name": name}
            found.append(case | result)

    for info in optim_db:
        # Those for a GPU are the others, and those with `capturable`.
        for given in info.optim_inputs_func("cuda"):
            add(info, "arguments", text(given.kwargs), compared(info, given.kwargs))
        for case in info.optim_error_inputs_func("cpu", torch.float64):
            add(info, "refused", case.optimizer_error_input.desc, refused(info, case))
        kwargs, sparse = info.metadata_for_sparse
        lists = [({}, x) for x in info.scheduler_inputs] + [
            (kwargs, [x]) for x in sparse
        ]
        for kwargs, schedulers in lists:
            name = scheduler_names(schedulers)
            add(info, "schedulers", name, compared(info, kwargs, schedulers))
    return found


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps(cases()))
