"""The laws of a wrapper, beside those of the transformations that it makes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jopt.algorithms.polyak import polyak_sgd
from jopt.algorithms.sgd import sgd
from jopt.core.chain import chain
from jopt.core.eval_params import eval_params
from jopt.core.transformation import GradientTransformation
from jopt.state.hyperparams import hyperparams, set_hyperparams
from jopt.testing import comparison
from jopt.testing.law import Skipped, law
from jopt.testing.laws.errors import refused
from jopt.testing.problem import loss, small
from jopt.testing.subject import Subject
from jopt.wrappers.averaging import params_ema


CHILDREN = (
    "return jopt.GradientTransformation(init, update, "
    'children={"inner_state": inner}), where inner_state is the field of your state '
    "with the state of inner, from a function decorated with @jopt.transformation."
)


def made(subject: Subject, inner: Any) -> GradientTransformation:
    """The wrapper around this transformation."""
    try:
        tx = subject.tx(inner)
    except ValueError as error:
        raise Skipped(f"it refuses {inner!r}: {error}") from error
    if not isinstance(tx, GradientTransformation):
        raise Skipped(f"it returns a plain pair. To have this, {CHILDREN}")
    return tx


@law(
    "wrappers",
    kind="wrapper",
    fix="give update a parameter **extra and pass it on, and declare what inner needs: "
    f"{CHILDREN}",
)
def what_the_inner_one_needs_is_passed_on(subject: Subject) -> None:
    """The loss reaches an inner optimizer that needs it, and is asked for by name."""
    tx = made(subject, polyak_sgd(1.0))
    params, grads = small()
    state = tx.init(params)
    updates, _ = tx.update(grads, state, params, value=loss(params))
    comparison.same_structure(updates, grads, "the update")
    refused(
        "updates without value",
        lambda: tx.update(grads, state, params),
        (TypeError,),
        "needs the argument 'value'",
        "name the argument",
    )


@law("wrappers", kind="wrapper", fix=CHILDREN)
def the_learning_rate_inside_can_be_read_and_set(subject: Subject) -> None:
    """jopt.hyperparams and jopt.set_hyperparams find the learning rate inside."""
    tx = made(subject, sgd(0.25))
    state = tx.init(small()[0])
    for rate in (0.25, 0.5):
        found = float(hyperparams(state)["learning_rate"])
        assert found == rate, f"the learning rate is {found} instead of {rate}"
        state = set_hyperparams(tx, state, learning_rate=0.5)


@law("wrappers", kind="wrapper", fix=CHILDREN)
def an_average_inside_can_be_evaluated_with(subject: Subject) -> None:
    """jopt.eval_params finds an average of the parameters inside."""
    tx = made(subject, chain(sgd(0.25), params_ema(0.5)))
    params, _ = small()
    found = eval_params(tx, tx.init(params), params)
    comparison.same_types(found, params, "the averaged parameters")
    assert all(bool(jnp.isfinite(x).all()) for x in found.values())
