"""`jopt.interop.optax` has optax's names, arguments, numbers and states."""

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jopt.interop import optax as door


NAMES = json.loads((Path(__file__).parent / "names.json").read_text())


def public(module: Any) -> list[str]:
    """The public names of a module that are not modules themselves."""
    return [
        name
        for name in dir(module)
        if not name.startswith("_")
        and not isinstance(getattr(module, name), ModuleType)
    ]


def module(package: str, name: str) -> Any:
    """A module of optax or of the door."""
    return importlib.import_module(f"{package}.{name}" if name else package)


def test_the_list_of_names_is_that_of_the_installed_optax() -> None:
    assert {name: public(module("optax", name)) for name in NAMES} == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_door_has_every_public_name(name: str) -> None:
    ours = module("jopt.interop.optax", name)
    assert not [x for x in NAMES[name] if not hasattr(ours, x)]


def classes() -> list[tuple[str, str]]:
    """The classes of optax with fields, by module and name."""
    return [
        (m, name)
        for m in NAMES
        for name in NAMES[m]
        if hasattr(getattr(module("optax", m), name), "_fields")
    ]


def test_every_class_has_its_fields_in_order() -> None:
    for m, name in classes():
        theirs = getattr(module("optax", m), name)
        ours = getattr(module("jopt.interop.optax", m), name)
        assert ours._fields == theirs._fields, name


def arguments(function: Any) -> list[Any]:
    """The arguments of a function: name, kind, default."""

    def default(value):
        if callable(value) or (isinstance(value, tuple) and hasattr(value, "init")):
            return "a function"
        return repr(value)

    return [
        (p.name, p.kind, default(p.default))
        for p in inspect.signature(function).parameters.values()
    ]


# Where optax has a function as its default, ours may have None: it means the same.
OTHER_DEFAULTS = {"scale_by_factored_rms", "sophia", "make_perturbed_fun"}


@pytest.mark.parametrize("m", NAMES)
def test_every_function_has_its_arguments_and_defaults(m: str) -> None:
    for name in NAMES[m]:
        theirs = getattr(module("optax", m), name)
        if not inspect.isfunction(theirs) or name in OTHER_DEFAULTS:
            continue
        ours = getattr(module("jopt.interop.optax", m), name)
        assert arguments(ours) == arguments(theirs), name


GIVEN: dict[str, Any] = {
    **{"learning_rate": 0.1, "max_norm": 1.0, "step_size": 0.5, "decay": 0.9},
    **{"max_delta": 0.5, "threshold": 0.5, "clipping": 0.1, "eta": 0.1, "gamma": 0.5},
    **{"key": 0, "step_size_fn": lambda count: 0.1 / (count + 1.0)},
}
# These need more than gradients, or are no transformations.
OTHERS = {
    *("lbfgs", "scale_by_lbfgs", "value_and_grad_from_state"),
    *("init_empty_state", "named_chain", "chain", "scale_by_muon", "sophia"),
    "hutchinson_estimator_diag_hessian",
}
# Members of optimizers that are compared, with the same numbers.
INSIDE = {
    f"scale_by_{name}"
    for name in (
        *("adam", "adamax", "adadelta", "amsgrad", "yogi", "radam", "lion", "novograd"),
        *("rms", "rprop", "sm3", "adan", "belief", "rss", "factored_rms", "acprop"),
        *("ademamix", "adopt", "cocob", "madgrad", "simplified_ademamix", "galore"),
        *("optimistic_gradient", "polyak", "sign", "trust_ratio"),
    )
}


def factories() -> list[tuple[str, str]]:
    """The functions of optax that make a transformation of `GIVEN` arguments."""
    found = []
    for m in ("", "contrib"):
        for name in NAMES[m]:
            function = getattr(module("optax", m), name)
            if not inspect.isfunction(function) or name in OTHERS | INSIDE:
                continue
            if function.__module__.startswith(("optax.losses", "optax._src.numerics")):
                continue
            parameters = inspect.signature(function).parameters.values()
            required = [p for p in parameters if p.default is p.empty]
            if all(
                p.name in GIVEN and p.kind is p.POSITIONAL_OR_KEYWORD for p in required
            ):
                found.append((m, name))
    return found


PARAMS = {"b": np.array([0.5, -2.0]), "w": np.arange(6.0).reshape(3, 2) / 3}


def gradients(i: int, dtype: Any) -> Any:
    """Gradients of several magnitudes, and exact zeros."""
    scale = 10.0 ** -(i % 3)
    grads = jax.tree.map(lambda p: jnp.cos(3 * p + i) * scale, PARAMS)
    grads["w"] = grads["w"].at[0, 0].set(0.0)
    return jax.tree.map(lambda g: g.astype(dtype), grads)


def made(package: Any, m: str, name: str) -> Any:
    """The transformation of a factory, and the extra arguments of its update."""
    function = getattr(getattr(package, m) if m else package, name)
    known = inspect.signature(getattr(module("optax", m), name)).parameters
    required = [p.name for p in known.values() if p.default is p.empty]
    tx = function(**{n: GIVEN[n] for n in required})
    needs_value = ("polyak" in name, "momo" in name, "plateau" in name)
    return tx, {"value": jnp.asarray(2.0, float)} if any(needs_value) else {}


def numbers(x: Any) -> np.ndarray:
    """An array as floats; a random key as its data."""
    is_key = jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x, float)


def leaves(tree: Any) -> list[np.ndarray]:
    """The leaves of a tree as floats."""
    return [numbers(x) for x in jax.tree.leaves(tree)]


def shape_of(state: Any) -> str:
    """The structure, shapes and dtypes of a state, by the names of its classes."""
    classes = str(jax.tree.structure(state)).replace("optax._src.", "")
    return classes + str(
        [(x.shape, str(x.dtype)) for x in map(jnp.asarray, jax.tree.leaves(state))]
    )


@pytest.mark.filterwarnings("ignore")  # optax warns of keys that are not given
@pytest.mark.parametrize(("m", "name"), factories())
def test_a_transformation_has_the_numbers_and_the_state_of_optax(
    m: str, name: str
) -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS)
        (ours, extra), (theirs, _) = made(door, m, name), made(optax, m, name)
        if not hasattr(theirs, "init"):
            return
        mine, other = ours.init(params), theirs.init(params)
        assert shape_of(mine) == shape_of(other)
        p = q = params
        for i in range(6):
            grads = gradients(i, float)
            u, mine = ours.update(grads, mine, p, **extra)
            v, other = theirs.update(grads, other, q, **extra)
            for x, y in zip(leaves((u, mine)), leaves((v, other)), strict=True):
                np.testing.assert_allclose(
                    x, y, 1e-7, 1e-12 + 1e-7 * np.abs(y).max(initial=0)
                )
            p, q = optax.apply_updates(p, u), optax.apply_updates(q, v)
        assert shape_of(mine) == shape_of(other)
