"""Muon, GaLore, Mechanic, Sophia and SAM of the door, next to the real optax."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jopt.interop import optax as door


SHAPES = {"b": (3,), "t": (4, 3, 5), "v": (4, 6), "w": (5, 3)}
SMALL = {"b": (2,), "w": (3, 2)}


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    # optax itself does not run under strict promotion.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def params_of(shapes: Any = SHAPES) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape)),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def gradient(params: Any, step: int) -> Any:
    # Of another scale in each step, so that averages do not hide a bias.
    return jax.tree.map(lambda p: 10.0 ** -(step % 3) * jnp.cos(3 * p + step), params)


def structure(state: Any) -> str:
    return str(jax.tree.structure(state)).replace("optax._src.", "")


def assert_same_steps(
    ours: Any, theirs: Any, params: Any = None, steps: int = 10, **extra: Any
) -> None:
    """Fails unless updates and states are equal in each step, and in structure."""
    start = params_of() if params is None else params

    def run(tx):
        state, p = tx.init(start), start
        update = jax.jit(lambda g, state, p: tx.update(g, state, p, **extra))
        for step in range(steps):
            updates, state = update(gradient(start, step), state, p)
            p = optax.apply_updates(p, updates)
            yield updates, state

    assert structure(ours.init(start)) == structure(theirs.init(start))
    for mine, other in zip(run(ours), run(theirs), strict=True):
        assert structure(mine) == structure(other)
        for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            assert x.dtype == y.dtype
            tiny = 1e-13 * np.abs(y).max(initial=0)
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=tiny)


def both(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The door's transformation and optax's, from a function of the package."""
    return make(door), make(optax)


# Muon.


def is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim == 2, params)


MUON = {
    "defaults": {},
    "plain and adaptive": {"nesterov": False, "adaptive": True},
    "spectral": {"preconditioning": "spectral", "ns_coeffs": "dion"},
    "aol": {
        "preconditioning": "aol",
        "ns_coeffs": ((3.0, -4.0, 2.0), (2.0, -1.5, 0.5)),
        "eps": 1e3,  # for AdamW only
    },
    "schatten": {"preconditioning": "schatten", "ns_steps": 3},
    "numbers": {
        "beta": 0.8,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "weight_decay_mask": is_matrix,
        "adam_b1": 0.8,
        "adam_b2": 0.9,
        "adam_eps_root": 1e-3,
        "adam_weight_decay": 0.2,
        "adam_learning_rate": 0.3,
        "consistent_rms": 0.2,
    },
}


@pytest.mark.parametrize("arguments", MUON.values(), ids=MUON)
def test_muon_has_the_numbers_and_the_state_of_optax(arguments):
    assert_same_steps(*both(lambda o: o.contrib.muon(0.02, **arguments)))


NESTED = {
    "m": {"t": (4, 3, 5), "u": (2, 3, 4)},
    "n": {"b": (3,), "k": (2, 2)},
    "v": (4, 6),
}
DIMENSIONS = {
    "tree": lambda D: {
        "m": {"t": D(0, (2, 1)), "u": None},
        "n": {"b": None, "k": D(1, 0)},
        "v": D(1, 0),
    },
    "prefix": lambda D: {"m": D(-3, -1), "n": None, "v": D()},
    "function": lambda D: (
        lambda params: jax.tree.map(
            lambda p: D(0, p.ndim - 1) if p.ndim > 1 else None, params
        )
    ),
    "function of nothing": lambda D: (
        lambda _: {"m": {"t": D((1, 0), 2), "u": None}, "n": None, "v": D(1, 0)}
    ),
}


@pytest.mark.parametrize("dimensions", DIMENSIONS.values(), ids=DIMENSIONS)
def test_muon_takes_dimension_numbers_in_each_form(dimensions):
    def make(o):
        numbers = dimensions(o.contrib.MuonDimensionNumbers)
        # What aol divides by depends on which side of a square is which.
        return o.contrib.muon(
            0.02, preconditioning="aol", muon_weight_dimension_numbers=numbers
        )

    assert_same_steps(*both(make), params_of(NESTED), steps=3)


def test_scale_by_muon_takes_its_coefficients_from_the_state():
    params = params_of()["w"]
    tx, other = both(lambda o: o.contrib.scale_by_muon())
    assert_same_steps(tx, other, params, steps=3)
    g = gradient(params, 0)
    results = []
    for each in (tx, other):
        state = each.init(params)
        state = state._replace(ns_coeffs=state.ns_coeffs.at[0].mul(0.5))
        results.append(each.update(g, state)[0])
    np.testing.assert_allclose(*results, rtol=1e-10)
    assert not np.allclose(results[0], tx.update(g, tx.init(params))[0])


def test_muon_orthogonalizes_complex_matrices_as_optax_does():
    params = jax.tree.map(lambda p: p + 1j * jnp.sin(3 * p), params_of({"w": (3, 5)}))
    for preconditioning in ("frobenius", "aol"):
        options = {"adaptive": True, "preconditioning": preconditioning}
        tx, other = both(lambda o, options=options: o.contrib.muon(0.02, **options))
        assert_same_steps(tx, other, params, steps=2)


def test_wrong_arguments_of_muon_raise():
    muon, numbers = door.contrib.muon, door.contrib.MuonDimensionNumbers
    with pytest.raises(ValueError, match="preconditioning must be one of 'frobenius'"):
        muon(0.1, preconditioning="none")
    with pytest.raises(ValueError, match="ns_coeffs must be one of 'standard', 'dion'"):
        muon(0.1, ns_coeffs="fast")
    with pytest.raises(ValueError, match="has 3 triples, but ns_steps is 2"):
        muon(0.1, ns_coeffs=((1.0, 2.0, 3.0),) * 3, ns_steps=2).init(params_of())
    with pytest.raises(ValueError, match=r"a triple \(a, b, c\), .* of shape \(2,\)"):
        muon(0.1, ns_coeffs=(1.0, 2.0)).init(params_of())
    for dimensions, message in [
        (numbers(), r"two or more axes, got a leaf of shape \(3,\)"),
        ({"b": None, "t": numbers(0, -3), "v": None, "w": None}, "input or an output"),
    ]:
        tx = muon(0.1, muon_weight_dimension_numbers=dimensions)
        with pytest.raises(ValueError, match=message):
            tx.update(params_of(), tx.init(params_of()), params_of())


# GaLore.


GALORE = {
    "defaults": lambda o: o.contrib.galore(0.02),
    "numbers": lambda o: o.contrib.galore(0.02, 2, 3, 0.25, None, 0.1, is_matrix),
    "lion": lambda o: o.contrib.galore(0.02, 2, 1, base_optimizer=o.scale_by_lion()),
    "foreign base": lambda o: o.contrib.scale_by_galore(2, 2, 1.0, optax.trace(0.9)),
    "tree": lambda o: o.contrib.galore(
        0.02,
        2,
        2,
        weight_dimension_numbers={
            "b": None,
            "t": o.contrib.GaLoreDimensionNumbers((2, 0), 1),
            "v": o.contrib.GaLoreDimensionNumbers(1, 0),
            "w": None,
        },
    ),
    "function": lambda o: o.contrib.galore(
        0.02,
        2,
        2,
        weight_dimension_numbers=lambda params: jax.tree.map(
            lambda p: (
                o.contrib.GaLoreDimensionNumbers(0, tuple(range(1, p.ndim)))
                if p.ndim > 1
                else None
            ),
            params,
        ),
    ),
}


@pytest.mark.parametrize("make", GALORE.values(), ids=GALORE)
def test_galore_has_the_numbers_and_the_state_of_optax(make):
    # The signs of the singular vectors are in the projectors and moments too.
    assert_same_steps(*both(make))


def test_one_set_of_dimension_numbers_holds_for_all_leaves_of_two_axes_or_more():
    def make(o):
        numbers = o.contrib.GaLoreDimensionNumbers(0, (1, 2))
        return o.contrib.galore(0.1, 2, weight_dimension_numbers=numbers)

    assert_same_steps(*both(make), params_of({"b": (3,), "t": (4, 3, 5)}), steps=2)


def test_wrong_arguments_of_galore_raise():
    galore, numbers = door.contrib.galore, door.contrib.GaLoreDimensionNumbers
    not_whole: Any = 2.0
    with pytest.raises(TypeError, match="rank must be an integer, got float"):
        galore(0.1, rank=not_whole)
    with pytest.raises(ValueError, match="rank must be positive, got 0"):
        galore(0.1, rank=0)
    with pytest.raises(ValueError, match=r"each axis must be .* of shape \(4, 3, 5\)"):
        galore(0.1, weight_dimension_numbers=numbers()).init(params_of())


# Mechanic.


MECHANIC = {
    "sgd": lambda o: o.contrib.mechanize(o.sgd(1.0)),
    "adam": lambda o: o.contrib.mechanize(o.adam(1.0), 0.1, 1e-6, 1e-3, 3),
    "adamw": lambda o: o.contrib.mechanize(o.adamw(1.0, weight_decay=0.1), 0.0),
}


@pytest.mark.parametrize("make", MECHANIC.values(), ids=MECHANIC)
def test_mechanize_has_the_numbers_and_the_state_of_optax(make):
    assert_same_steps(*both(make), params_of(SMALL))


def test_mechanize_starts_from_the_params_of_its_first_step():
    tx, other = both(lambda o: o.contrib.mechanize(o.sgd(1.0)))
    params = params_of(SMALL)
    later = jax.tree.map(lambda p: p + 1, params)
    for each in (tx, other):
        _, state = jax.jit(each.update)(params, each.init(params), later)
        np.testing.assert_array_equal(state.x0["w"], later["w"])


# Sophia.


def loss(params: Any) -> Any:
    return sum(jnp.sum(jnp.sin(p) * p**2 + p**4) for p in jax.tree.leaves(params))


SOPHIA = {
    "defaults": lambda o: o.contrib.sophia(0.1),
    "numbers": lambda o: o.contrib.sophia(
        0.1, 0.8, 0.7, 1e-4, 0.3, is_matrix, 0.2, 0.5, 2
    ),
    "no clipping": lambda o: o.contrib.sophia(
        0.1, clip_threshold=None, update_interval=3, eps=0.1
    ),
    "another key": lambda o: o.contrib.sophia(
        0.1,
        update_interval=2,
        hessian_diagonal_fn=o.contrib.hutchinson_estimator_diag_hessian(
            jax.random.PRNGKey(3)
        ),
    ),
    "another estimator": lambda o: o.contrib.sophia(
        0.1, update_interval=2, eps=0.1, hessian_diagonal_fn=optax.scale(3.0)
    ),
    "estimator": lambda o: o.chain(
        o.contrib.hutchinson_estimator_diag_hessian(), o.scale(-0.01)
    ),
}


@pytest.mark.parametrize("make", SOPHIA.values(), ids=SOPHIA)
def test_sophia_has_the_numbers_and_the_state_of_optax(make):
    assert_same_steps(*both(make), params_of(SMALL), obj_fn=loss)


def test_sophia_reports_what_was_not_clipped():
    tx = door.contrib.sophia(0.1, eps=1.0, verbose=True, print_win_rate_every_n_steps=2)
    params = {"w": jnp.ones(4)}
    g = {"w": jnp.array([0.5, 0.5, 0.5, 20.0])}
    state, printed = tx.init(params), io.StringIO()
    with redirect_stdout(printed):
        for _ in range(3):
            _, state = tx.update(g, state, params, obj_fn=loss)
        jax.effects_barrier()
    assert printed.getvalue() == "Sophia: 0.75 of the updates were not clipped\n"


def test_sophia_says_what_its_update_needs():
    tx, params = door.contrib.sophia(0.1), params_of()
    with pytest.raises(ValueError, match="update\\(updates, state, params"):
        tx.update(params, tx.init(params), obj_fn=loss)
    with pytest.raises(ValueError, match="obj_fn=loss"):
        tx.update(params, tx.init(params), params)


# SAM.


SAM = {
    "defaults": {},
    "three": {"sync_period": 3},
    "kept state": {"sync_period": 3, "reset_state": False},
    "one": {"sync_period": 1},
    "opaque": {"opaque_mode": True},
    "opaque, four, kept state": {
        "opaque_mode": True,
        "sync_period": 4,
        "reset_state": False,
    },
}


@pytest.mark.parametrize("arguments", SAM.values(), ids=SAM)
def test_sam_has_the_numbers_and_the_state_of_optax(arguments):
    def make(o):
        uphill = o.chain(o.contrib.normalize(), o.adam(0.05))
        return o.contrib.sam(o.adam(0.1), uphill, **arguments)

    def grad_fn(params, i):
        return jax.tree.map(lambda g: g * (i + 1), jax.grad(loss)(params))

    assert_same_steps(*both(make), params_of(SMALL), grad_fn=grad_fn)


def test_sam_averages_its_gradients_over_an_axis_of_devices():
    def make(o):
        return o.contrib.sam(
            o.sgd(0.1), o.sgd(0.5), opaque_mode=True, batch_axis_name="devices"
        )

    params = jnp.array([1.0, 2.0])
    batches = jnp.array([[1.0, 2.0], [3.0, -4.0]])
    updates = []
    for tx in both(make):

        def step(batch, tx=tx):
            def grad_fn(p, i):
                return batch * p**3

            update = tx.update(params, tx.init(params), params, grad_fn=grad_fn)
            return update[0]

        updates.append(jax.vmap(step, axis_name="devices")(batches))
    np.testing.assert_allclose(*updates, rtol=1e-12)
    np.testing.assert_array_equal(updates[0][0], updates[0][1])


def test_wrong_arguments_of_sam_raise():
    sgd = door.sgd(0.1)
    with pytest.raises(ValueError, match="sync_period must be >= 1, got sync_period=0"):
        door.contrib.sam(sgd, sgd, sync_period=0)
    tx, params = door.contrib.sam(sgd, sgd, opaque_mode=True), jnp.ones(2)
    with pytest.raises(ValueError, match="grad_fn=grad_fn"):
        tx.update(params, tx.init(params), params)


# All of them.


@pytest.mark.parametrize("name", ["muon", "scale_by_muon", "galore", "scale_by_galore"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_do_not_change_from_step_to_step(name, dtype):
    arguments = {} if name.startswith("scale") else {"learning_rate": 0.1}
    tx = getattr(door.contrib, name)(**arguments)
    params = jnp.ones((3, 4), dtype)
    state = tx.init(params)

    def step(carry, _):
        updates, after = tx.update(params, carry, params)
        return after, updates

    _, updates = jax.lax.scan(step, state, length=2)
    assert updates.dtype == params.dtype
    assert {x.dtype for x in jax.tree.leaves(state) if x.ndim > 1} == {params.dtype}
