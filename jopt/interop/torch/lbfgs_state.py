"""The state of LBFGS, which torch keeps with its first parameter, as flat vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.interop.shared.parameter_order import Parameter
from jopt.interop.torch.lbfgs import TorchLbfgsState


VECTORS = ("d", "prev_flat_grad")
LISTS = ("old_dirs", "old_stps")
NUMBERS = ("func_evals", "n_iter", "t", "H_diag", "prev_loss")


def is_lbfgs(state: Any) -> bool:
    """Whether this is the state of `LBFGS`."""
    return set(TorchLbfgsState._fields) <= set(getattr(state, "_fields", ()))


def read(
    state: Any,
    params: Any,
    parameters: Sequence[Parameter],
    entry: Mapping[str, Any],
    rate: Any,
    count: int,
) -> Any:
    """Return a state with torch's numbers.

    Args:
      state: The first state.
      params: The parameters.
      parameters: The same in torch's order.
      entry: torch's state of the first parameter.
      rate: torch's learning rate.
      count: The number of steps so far.

    Raises:
      ValueError: The entry is not that of LBFGS, or does not fit.
    """
    new: dict[str, Any] = {"count": count, "learning_rate": rate}
    new |= {name: entry[name] for name in NUMBERS if name in entry}
    if "d" in entry:
        size, kept = state.ro.shape[0], len(entry["ro"])
        if kept > size:
            raise ValueError(
                f"torch has kept {kept} pairs, and history_size here is {size}"
            )
        ro = np.zeros(size, state.ro.dtype)
        ro[:kept] = [float(x) for x in entry["ro"]]
        new |= {"ro": ro, "pairs": kept}
        for name in VECTORS:
            new[name] = _tree(_array(entry[name]), params, parameters)
        for name in LISTS:
            rows = [_tree(_array(x), params, parameters) for x in entry[name]]
            buffers, treedef = jax.tree.flatten(getattr(state, name))
            columns = [treedef.flatten_up_to(row) for row in rows]
            for i, buffer in enumerate(buffers):
                filled = np.array(buffer)
                for k, column in enumerate(columns):
                    filled[k] = column[i]
                buffers[i] = filled
            new[name] = treedef.unflatten(buffers)
    elif entry.get("n_iter"):
        raise ValueError(
            f"this is not a state of torch's LBFGS, which has {sorted(VECTORS)} after "
            f"its first iteration: it has {sorted(entry)}"
        )
    return state._replace(
        **{
            name: jax.tree.map(
                lambda old, x: jnp.asarray(np.asarray(x), old.dtype),
                getattr(state, name),
                value,
            )
            for name, value in new.items()
        }
    )


def written(
    state: Any,
    params: Any,
    parameters: Sequence[Parameter],
    tensor: Callable[[np.ndarray], Any],
) -> dict[str, Any]:
    """Return torch's state of the first parameter; see `read`."""
    entry: dict[str, Any] = {
        "func_evals": int(state.func_evals),
        "n_iter": int(state.n_iter),
    }
    if entry["n_iter"] == 0:
        return entry
    size = state.ro.shape[0]
    kept = min(int(state.pairs), size)
    # Oldest first.
    rows = [(int(state.pairs) - kept + k) % size for k in range(kept)]
    for name in VECTORS:
        entry[name] = tensor(_flat(getattr(state, name), parameters))
    for name in LISTS:
        buffers = getattr(state, name)
        entry[name] = [
            tensor(_flat(jax.tree.map(lambda x, i=i: x[i], buffers), parameters))
            for i in rows
        ]
    entry["ro"] = [tensor(np.asarray(state.ro[i])) for i in rows]
    entry |= {name: float(getattr(state, name)) for name in ("t", "prev_loss")}
    entry["H_diag"] = tensor(np.asarray(state.H_diag))
    return entry


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _flat(whole: Any, parameters: Sequence[Parameter]) -> np.ndarray:
    """All leaves in torch's order as one vector, complex ones as pairs."""
    leaves = dict(tree.leaves_with_names(whole))
    parts = [np.ascontiguousarray(p.to_other(leaves[p.path])) for p in parameters]
    return np.concatenate([x.reshape(-1).view(np.real(x).dtype) for x in parts])


def _tree(vector: np.ndarray, params: Any, parameters: Sequence[Parameter]) -> Any:
    """A tree like the parameters from torch's vector."""
    kinds = dict(tree.leaves_with_names(params))
    sizes = [
        math.prod(p.shape) * (2 if jnp.iscomplexobj(kinds[p.path]) else 1)
        for p in parameters
    ]
    if vector.size != sum(sizes):
        raise ValueError(
            f"torch's parameters have {vector.size} elements, and params {sum(sizes)}"
        )
    parts = {}
    for p, part in zip(
        parameters, np.split(vector, np.cumsum(sizes)[:-1]), strict=True
    ):
        if jnp.iscomplexobj(kinds[p.path]):
            part = part[0::2] + 1j * part[1::2]
        parts[p.path] = p.to_jopt(part.reshape(p.shape))
    treedef = jax.tree.structure(params)
    return treedef.unflatten([parts[path] for path in kinds])
