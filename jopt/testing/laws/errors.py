"""What is wrong is refused, with the name of the leaf or the argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt.testing import comparison, needs
from jopt.testing.comparison import types
from jopt.testing.law import Skipped, law
from jopt.testing.laws.trees import with_leaf
from jopt.testing.problem import loss, update
from jopt.testing.subject import Subject
from jopt.tree import paths


CHECKED = (
    "A rule written with jopt.leafwise gets this check. In an update of your own, "
    "compare the trees first, and raise with the leaf's name."
)


def refused(
    what: str,
    call: Callable[[], Any],
    classes: tuple[type[Exception], ...],
    pattern: str,
    says: str,
) -> None:
    """Raise AssertionError unless a call raises.

    Args:
      what: What is wrong in the call.
      call: The call.
      classes: The error has one of them.
      pattern: The message fits it.
      says: What that means, in words.
    """
    try:
        call()
    except classes as error:
        assert re.search(pattern, str(error), re.DOTALL), (
            f"the error for {what} does not {says}: {error}"
        )
    except Exception as error:
        raise AssertionError(
            f"the error for {what} is {type(error).__name__}: {error}"
        ) from error
    else:
        raise AssertionError(f"{what} are not refused")


@law("errors", fix=CHECKED, needs=[needs.checks])
def wrong_shapes_are_refused_with_the_path_of_the_leaf(subject: Subject) -> None:
    """Gradients of other shapes are refused, with the leaf and both shapes."""
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    name, leaf = max(paths.leaves_with_names(grads), key=lambda pair: pair[1].ndim)
    other = jnp.zeros((*leaf.shape, 2), leaf.dtype) if leaf.ndim < 2 else leaf.T
    if other.shape == leaf.shape:
        other = jnp.zeros((*leaf.shape, 2), leaf.dtype)
    wrong = with_leaf(grads, name, other)

    def call():
        return update(tx, wrong, state, params)

    if not jax.tree.leaves(state) and "params" not in tx.needs.requires:
        # Only the gradients say what shapes there are: nothing can contradict them.
        try:
            updates, _ = call()
        except (TypeError, ValueError):
            pass
        else:
            if types(updates) == types(wrong) and not subject.is_strict:
                return
    shapes = re.escape(str(other.shape)), re.escape(str(leaf.shape))
    pattern = f"'{re.escape(name)}'.*{shapes[0]}.*{shapes[1]}"
    refused(
        "gradients of another shape",
        call,
        (ValueError,),
        pattern,
        f"name the leaf {name!r} and both shapes",
    )


@law("errors", fix=CHECKED, needs=[needs.checks])
def wrong_structures_are_refused_with_the_path_of_the_leaf(subject: Subject) -> None:
    """Gradients that lack a leaf are refused, with the name of the leaf."""
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    if not isinstance(grads, dict):
        raise Skipped("it takes away an entry of a dict, and params is not a dict")
    last = sorted(grads)[-1]
    fewer = {n: g for n, g in grads.items() if n != last}
    if not jax.tree.leaves(state) and not subject.is_strict:
        try:
            updates, _ = update(tx, fewer, state, params)
        except (TypeError, ValueError):
            pass
        else:
            comparison.same_structure(updates, fewer, "the update")
            return
    refused(
        "gradients that lack a leaf",
        lambda: update(tx, fewer, state, params),
        (ValueError,),
        f"different structures.*'{re.escape(last)}",
        f"say that the structures are different, with the leaf {last!r}",
    )


@law("errors", fix=CHECKED, needs=[needs.checks])
def integer_leaves_are_refused_with_the_path_of_the_leaf(subject: Subject) -> None:
    """Integer parameters and gradients are refused, with the name of the leaf."""
    if subject.integer_leaves:
        raise Skipped("integers may be frozen")
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    name, leaf = paths.leaves_with_names(grads)[0]
    whole = jnp.arange(leaf.size, dtype=jnp.int32).reshape(leaf.shape)
    pattern = f"'{re.escape(name)}' has dtype int32"
    refused(
        "integer gradients",
        lambda: update(tx, with_leaf(grads, name, whole), state, params),
        (TypeError,),
        pattern,
        f"name the leaf {name!r} and its dtype",
    )
    refused(
        "integer parameters",
        lambda: tx.init(with_leaf(params, name, whole)),
        (TypeError,),
        pattern,
        f"name the leaf {name!r} and its dtype",
    )


@law(
    "errors",
    fix="declare in the signature of update what it needs: "
    "update(updates, state, params) where it cannot do without the parameters, and "
    "keyword-only arguments for anything else. Return "
    "jopt.GradientTransformation(init, update), which reads the signature.",
    needs=[needs.checks],
)
def missing_params_and_misspelt_arguments_are_refused(subject: Subject) -> None:
    """Missing parameters and misspelt arguments are refused, others are ignored."""
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    refused(
        "misspelt arguments",
        lambda: tx.update(grads, state, parms=params),
        (TypeError,),
        "'parms'.*Did you mean 'params'",
        "ask whether params is meant",
    )
    if subject.needs_value:
        refused(
            "updates without value",
            lambda: tx.update(grads, state, params),
            (TypeError,),
            "needs the argument 'value'",
            "name the argument",
        )
    told = {"value": loss(params)}
    without = _updates_or_error(lambda: update(tx, grads, state, **told)[0])
    ignored = _updates_or_error(lambda: update(tx, grads, state, los=2.0, **told)[0])
    if isinstance(without, Exception):
        wanted = "needs the parameters: call update(updates, state, params)"
        assert wanted in str(without), (
            f"the error for an update without params does not say {wanted!r}: {without}"
        )
        assert type(ignored) is TypeError
        return
    comparison.equal(without, ignored, "the update with an unknown argument")
    with_params, _ = update(tx, grads, state, params)
    comparison.equal(without, with_params, "the update without params")


def _updates_or_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TypeError as error:
        return error
