"""The state is a fixed point: an update changes no structure, shape or dtype."""

from __future__ import annotations

import contextlib
import functools

import jax

from jopt.core.apply import apply_updates
from jopt.core.order import lands
from jopt.core.transformation import GradientTransformation
from jopt.testing.comparison import same_types
from jopt.testing.law import law
from jopt.testing.problem import update
from jopt.testing.subject import Subject


@law(
    "types",
    fix="keep slots in a dtype of their own (float32 for moments, whatever the "
    "parameters are), round updates to the dtype of their gradient "
    "(u.astype(g.dtype)), and give every new array a dtype. A rule written with "
    "jopt.leafwise does not have to care.",
)
def types_never_change(subject: Subject) -> None:
    """For every mix of dtypes, from f16 to f64, an update keeps the types."""
    for param_dtype in ("float16", "bfloat16", "float32", "float64"):
        wide = param_dtype == "float64"
        with jax.enable_x64(True) if wide else contextlib.nullcontext():
            tx = subject.make()
            exact = isinstance(tx, GradientTransformation) and lands(tx)
            params = subject.small(param_dtype)[0]
            state = jax.eval_shape(tx.init, params)
            one = f"of {param_dtype} parameters"
            same_types(
                tx.init(params), state, f"the state that init makes {one} outside jit"
            )
            for grad_dtype in ("float16", "bfloat16", "float32"):
                grads = subject.small(grad_dtype)[1]
                both = f"for {grad_dtype} gradients {one}"
                updates, new_state = jax.eval_shape(
                    functools.partial(update, tx), grads, state, params
                )
                same_types(new_state, state, f"the state after an update {both}")
                if exact and param_dtype in ("float16", "bfloat16"):
                    grads = subject.small()[1]  # the updates are float32
                same_types(updates, grads, f"the update {both}")
                new_params = jax.eval_shape(apply_updates, params, updates)
                same_types(new_params, params, f"the new parameters {both}")
