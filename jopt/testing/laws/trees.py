"""Unusual trees: None, nothing, no elements, no axes, complex numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates
from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.problem import as_dtype, stack, trajectory, update, updates_of
from jopt.testing.subject import Subject
from jopt.tree import paths


TREES = (
    "go through trees with jax.tree.map only, which leaves None and empty containers "
    "as they are, and reduce an array in a way that has a value without elements "
    "(jnp.max has none). A rule written with jopt.leafwise does not have to care."
)


@law("trees", fix=TREES, needs=[needs.own_params])
def none_empty_zero_size_and_scalar_leaves_work(subject: Subject) -> None:
    """Trees with None, empty containers, zero-size and scalar leaves work."""
    tx = subject.make()
    params = {
        "empty": {},
        "nothing": None,
        "none_there": jnp.zeros((0, 3)),
        "scalar": jnp.float32(2.0),
        "w": jnp.ones((2, 3)),
    }
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    state = tx.init(params)
    updates, new_state = update(tx, grads, state, params)
    comparison.same_structure(updates, grads, "the update")
    comparison.same_types(new_state, state, "the state after an update")
    new_params = apply_updates(params, updates)
    comparison.same_types(new_params, params, "the new parameters")
    comparison.finite(new_params, "the new parameters")
    without = {"scalar": params["scalar"], "w": params["w"]}
    alone, _ = update(tx, {k: grads[k] for k in without}, tx.init(without), without)
    comparison.close(
        {k: updates[k] for k in without},
        alone,
        rtol=1e-6,
        what="the update beside leaves without elements",
    )


@law(
    "trees",
    fix="a gradient of None means that the leaf takes no part: return None for its "
    "update and the old values for its slots. A rule written with jopt.leafwise does "
    "not have to care.",
    needs=[needs.checks],
)
def a_leaf_without_gradient_keeps_its_value_and_its_slots(subject: Subject) -> None:
    """A leaf whose gradient is None keeps its value and its part of the state."""
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    name, _ = paths.leaves_with_names(params)[0]
    updates, new_state = update(tx, with_leaf(grads, name, None), state, params)
    found = dict(paths.leaves_with_names(updates, none=True))[name]
    assert found is None, f"the update of leaf {name!r} is {found} instead of None"
    new_params = apply_updates(params, updates)
    found, expected = (dict(paths.leaves_with_names(t)) for t in (new_params, params))
    comparison.equal(found[name], expected[name], f"the new parameter {name!r}")

    def slots(state):
        leaves = paths.leaves_with_names(state)
        return {path: x for path, x in leaves if f"/{path}".endswith(f"/{name}")}

    comparison.equal(slots(new_state), slots(state), "the state")
    comparison.same_types(new_state, state, "the state after an update")


def with_leaf(tree: Any, name: str, value: Any) -> Any:
    """The tree with another value for the leaf of this name."""

    def choose(path, x):
        return value if paths.path_name(path) == name else x

    return jax.tree_util.tree_map_with_path(choose, tree)


@law("trees", fix=TREES, needs=[needs.own_params])
def an_empty_tree_works(subject: Subject) -> None:
    """A tree without leaves gives a tree without leaves."""
    tx = subject.make()
    for tree in ({}, ()):
        updates, state = update(tx, tree, tx.init(tree), tree)
        assert updates == tree, f"the update of {tree} is {updates}"
        comparison.same_types(state, tx.init(tree), f"the state after {tree}")


@law(
    "trees",
    fix="use abs(g) ** 2 instead of g ** 2, and g / abs(g) instead of jnp.sign(g); or "
    "raise a TypeError that names the leaf. jopt.split_real_and_imaginary(tx) treats a "
    "complex leaf as two real ones.",
)
def complex_leaves_work_or_are_refused_by_name(subject: Subject) -> None:
    """Complex leaves give the right numbers, or a TypeError that names the leaf."""
    params, grads = subject.draw(steps=5)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 1j * rng.normal(size=p.shape), params)
    grads = jax.tree.map(lambda g: g + 1j * np.roll(g, 1), grads)
    tx = subject.make()
    narrow = as_dtype(params, jnp.complex64)
    names = [name for name, _ in paths.leaves_with_names(params)]
    if not subject.complex_leaves:
        try:
            updates, _ = update(tx, narrow, tx.init(narrow), narrow)
        except TypeError as error:
            refused = [f"leaf {name!r} has dtype complex64" for name in names]
            assert any(text in str(error) for text in refused), (
                f"a complex leaf is refused without {refused[0]!r} in the message: "
                f"{error}"
            )
            return
        assert subject.complex_leaves is None, "complex leaves are not refused"
        comparison.same_types(updates, narrow, "the update of complex leaves")
        comparison.finite(updates, "the update of complex leaves")
    if not subject.has_twin:
        return
    found = (trajectory if subject.is_optimizer else updates_of)(
        tx, narrow, as_dtype(grads, jnp.complex64)
    )
    expected = as_dtype(stack(list(subject.expected(params, grads))), jnp.complex64)
    comparison.close(
        found,
        expected,
        rtol=1e-4,
        atol=1e-6,
        what="the complex numbers (by step)",
    )
