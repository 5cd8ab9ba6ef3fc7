"""Inside wrappers, chains and other libraries' training states."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt.core.apply import apply_updates
from jopt.core.chain import chain
from jopt.core.eval_params import has_readout
from jopt.core.order import lands, must_be_last
from jopt.core.transformation import GradientTransformation
from jopt.testing import comparison, needs
from jopt.testing.law import Skipped, law
from jopt.testing.problem import as_dtype, loss, stack, trajectory, update
from jopt.testing.subject import Subject
from jopt.transforms.gradients import freeze, identity
from jopt.transforms.learning_rate import scale_by_group
from jopt.wrappers.accumulation import accumulate
from jopt.wrappers.averaging import params_ema, params_mean
from jopt.wrappers.conditionally import conditionally_mask, conditionally_transform
from jopt.wrappers.guards import apply_if_finite, skip_nonfinite
from jopt.wrappers.lawa import params_lawa
from jopt.wrappers.lookahead import lookahead
from jopt.wrappers.loss_scale import dynamic_loss_scale
from jopt.wrappers.masking import masked, partition, selective_transform
from jopt.wrappers.monitor import monitor
from jopt.wrappers.spikes import skip_spikes


Wrapper = Callable[[Any], Any]
CLOSE = {"rtol": 1e-5, "atol": 1e-7}
FIX = (
    "everything that it remembers belongs into the state, and init must make the state "
    "of any part of the parameters: leaves that others take care of are None."
)


def in_order(tx: Any, *others: Any) -> list[Any]:
    """An optimizer and members that change its updates, if they may come after it."""
    return [*others, tx] if must_be_last(tx) else [tx, *others]


# Around anything, these change nothing of the first steps.
NEUTRAL: dict[str, Wrapper] = {
    "chain": lambda tx: chain(identity(), inner=tx),
    "masked": lambda tx: masked(tx, True),
    "partition": lambda tx: partition({"all": tx}, "all"),
    "selective_transform": lambda tx: selective_transform(tx, freeze_mask=False),
    "accumulate": lambda tx: accumulate(tx, 1),
    "skip_nonfinite": skip_nonfinite,
    "apply_if_finite": lambda tx: apply_if_finite(tx, 3),
    "skip_spikes": lambda tx: skip_spikes(tx, warmup_steps=100),
    "dynamic_loss_scale": lambda tx: dynamic_loss_scale(tx, init_scale=1.0),
    "conditionally_transform": lambda tx: conditionally_transform(tx, _always),
    "conditionally_mask": lambda tx: conditionally_mask(tx, _always),
    "monitor": lambda tx: monitor(tx, keep=True),
    "a chain with averages": lambda tx: chain(
        tx, params_mean(), params_ema(0.9), params_lawa(2)
    ),
    "a chain with groups": lambda tx: chain(
        *in_order(tx, scale_by_group(1), freeze(False))
    ),
    "lookahead": lambda tx: lookahead(tx, sync_period=100),
}


@functools.lru_cache(maxsize=1)
def _trajectory(tx: Any) -> Any:
    return trajectory(tx, *as_dtype(Subject(tx).draw(steps=4), jnp.float32))


def alone(subject: Subject) -> Any:
    """The parameters after each of four steps; the laws of one subject share them."""
    if subject.params is None:
        return _trajectory(subject.make())
    return trajectory(subject.tx, *as_dtype(subject.draw(steps=4), jnp.float32))


def _always(step: Any) -> Any:
    return step >= 0


# Those that change or round updates, which is refused where they must not.
CHANGING = {
    "accumulate",
    "dynamic_loss_scale",
    "conditionally_transform",
    "conditionally_mask",
    "lookahead",
}
# Three at once compile as fast as one. If they fail, each is tested alone, to name it.
NESTS = [
    ("chain", "masked", "partition"),
    ("selective_transform", "accumulate", "monitor"),
    ("skip_nonfinite", "conditionally_transform", "skip_spikes"),
    ("apply_if_finite", "conditionally_mask", "a chain with groups"),
    ("dynamic_loss_scale", "lookahead"),
    ("a chain with averages",),
]
assert sorted(name for nest in NESTS for name in nest) == sorted(NEUTRAL)


@law("composition", kind="optimizer", fix=FIX)
def it_gives_the_same_numbers_inside_every_wrapper(subject: Subject) -> None:
    """Inside each wrapper of jopt it takes the same steps as alone."""
    tx = subject.make()
    tx = tx if isinstance(tx, GradientTransformation) else chain(tx)
    nests = NESTS
    if lands(tx):
        nests = [tuple(n for n in nest if n not in CHANGING) for nest in NESTS]
    elif has_readout(tx):
        try:
            lookahead(tx)
        except ValueError as error:
            assert "average after lookahead" in str(error), error
        else:
            raise AssertionError("lookahead around an average is not refused")
        nests = [tuple(n for n in nest if n != "lookahead") for nest in NESTS]
    nests = [nest for nest in nests if nest]
    for name in (name for nest in nests for name in nest):
        _check_state(subject, name, NEUTRAL[name](tx))
    found = _runs(subject, {nest: nested(tx, nest) for nest in nests} | {(): tx})
    for nest in nests:
        try:
            _check_run(found, nest)
        except AssertionError:
            single = {(name,): NEUTRAL[name](tx) for name in nest}
            each = _runs(subject, single | {(): tx})
            for name in single:
                _check_run(each, name)
            raise


def nested(tx: Any, nest: tuple[str, ...]) -> Any:
    """The transformation inside these wrappers, of which the first is the outermost."""
    for name in reversed(nest):
        tx = NEUTRAL[name](tx)
    return tx


def _check_state(subject: Subject, name: str, tx: Any) -> None:
    """Test that params and state can be donated, and that no types change."""
    params, _ = subject.small()
    arrays = jax.tree.leaves((params, tx.init(params)))
    buffers = {x.unsafe_buffer_pointer() for x in arrays}
    assert len(buffers) == len(arrays), f"inside {name}, two arrays share memory"
    half, grads = subject.small(jnp.bfloat16)[0], subject.small()[1]
    state = jax.eval_shape(tx.init, half)
    new, new_state = jax.eval_shape(functools.partial(update, tx), grads, state, half)
    comparison.same_types(new, grads, f"the update inside {name}")
    comparison.same_types(new_state, state, f"the state inside {name}")


def _runs(subject: Subject, txs: dict[tuple[str, ...], Any]) -> dict[Any, Any]:
    """The parameters after each step of two runs: under jit, scan and vmap at once."""
    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)
    if subject.params is None:  # a vector more has nothing to show here
        params, *grads = ({n: t[n] for n in t if n != "bias"} for t in (params, *grads))

    def body(carry, g):
        new = []
        for tx, (params, state) in zip(txs.values(), carry, strict=True):
            updates, state = update(tx, g, state, params)
            new.append((apply_updates(params, updates), state))
        return new, [params for params, _ in new]

    @jax.jit
    @jax.vmap
    def run(params, grads):
        carry = [(params, tx.init(params)) for tx in txs.values()]
        return jax.lax.scan(body, carry, grads)[1]

    twice = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    both = jax.tree.map(lambda g: jnp.stack([g, -0.5 * g]), stack(grads))
    return dict(zip(txs, run(twice, both), strict=True))


def _check_run(found: dict[Any, Any], nest: tuple[str, ...]) -> None:
    where = " around ".join(nest)
    what = f"the parameters (by run and step) inside {where}"
    comparison.close(found[nest], found[()], what=what, **CLOSE)


@law(
    "composition",
    kind="optimizer",
    fix=FIX,
    needs=[needs.library("optax", "optax"), needs.no_value],
)
def it_gives_the_same_numbers_in_a_chain_of_optax(subject: Subject) -> None:
    """Inside optax.chain it takes the same steps as alone."""
    import optax

    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)
    expected = alone(subject)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        inside = optax.chain(optax.identity(), subject.make())
        found = trajectory(inside, params, grads)
    what = "the parameters (by step) inside optax.chain"
    comparison.close(found, expected, what=what, **CLOSE)


@law(
    "composition",
    kind="optimizer",
    fix=FIX,
    needs=[needs.library("flax", '"jopt[flax]"'), needs.no_value],
)
def it_gives_the_same_numbers_in_a_trainstate_of_flax(subject: Subject) -> None:
    """In Flax's TrainState it takes the same steps as alone."""
    from flax.training.train_state import TrainState

    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)
    expected = alone(subject)
    with jax.numpy_dtype_promotion("standard"):
        state: Any = TrainState.create(apply_fn=None, params=params, tx=subject.make())
        for g in grads:
            state = state.apply_gradients(grads=g)
    last = jax.tree.map(lambda x: x[-1], expected)
    comparison.close(state.params, last, what="the parameters in TrainState", **CLOSE)


@law(
    "composition",
    kind="optimizer",
    fix=FIX,
    needs=[needs.library("flax", '"jopt[flax]"')],
)
def it_gives_the_same_numbers_in_an_optimizer_of_nnx(subject: Subject) -> None:
    """In nnx.Optimizer it takes the same steps as alone."""
    from flax import nnx

    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)
    expected = alone(subject)
    if not isinstance(params, dict):
        raise Skipped("it makes a model of a dict, and params is not a dict")

    def module(tree):
        if isinstance(tree, dict):
            return nnx.Dict({name: module(x) for name, x in tree.items()})
        return nnx.Param(tree)

    with jax.numpy_dtype_promotion("standard"):
        model = module(params)
        optimizer = nnx.Optimizer(model, subject.make(), wrt=nnx.Param)
        for g in grads:
            now = nnx.to_pure_dict(nnx.state(model))
            told = {"value": loss(now)} if subject.needs_value else {}
            optimizer.update(model, nnx.state(module(g)), **told)
    last = jax.tree.map(lambda x: x[-1], expected)
    found = nnx.to_pure_dict(nnx.state(model))
    comparison.close(found, last, what="the parameters in nnx.Optimizer", **CLOSE)
