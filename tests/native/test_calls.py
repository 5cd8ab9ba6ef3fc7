"""Calls of kernels in programs: in place, under transformations, on other devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jopt
from jopt.native import calls
from tests.native.adam_rule import IN_PLACE, NUMBERS, adamw, leaf, native


def is_native(f, *arguments):
    """Whether a program calls a kernel."""
    return "custom_call @jopt_native" in jax.jit(f).lower(*arguments).as_text()


def same(ours, theirs):
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-37)


# Many elements are several blocks, for several threads, the last one not full.
@pytest.mark.parametrize("shape", [(2,), (7,), (3, 5), (2, 3, 4), (16384,), (300_007,)])
def test_a_leaf_of_any_shape_is_updated(shape):
    arguments = [*leaf(shape), *NUMBERS]
    call = native(adamw, *arguments)
    assert is_native(call, *arguments)
    ours = jax.jit(call)(*arguments)
    assert [x.shape for x in ours] == [shape] * 3
    same(ours, jax.jit(adamw)(*arguments))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (0,), (0, 3)])
def test_a_leaf_without_a_loop_stays_with_xla(shape):
    assert native(adamw, *leaf(shape), *NUMBERS) is None


def test_threads_share_a_large_leaf_again_and_again():
    arguments = [jnp.asarray(x) for x in (*leaf((200_000,)), *NUMBERS)]
    call = jax.jit(native(adamw, *arguments))
    first = call(*arguments)
    for _ in range(50):
        for x, y in zip(call(*arguments), first, strict=True):
            np.testing.assert_array_equal(x, y)


def test_donated_arrays_are_updated_in_place_without_copies():
    arguments = [*leaf((1000, 30)), *NUMBERS]
    call = jax.jit(native(adamw, *arguments), donate_argnums=(1, 2, 3))
    compiled = call.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes == 0
    assert memory.alias_size_in_bytes == 3 * 1000 * 30 * 4
    assert " copy(" not in compiled.as_text()
    g, *state, numbers = *map(jnp.array, arguments[:4]), arguments[4:]
    before = [x.unsafe_buffer_pointer() for x in state]
    after = call(g, *state, *numbers)
    assert all(x.is_deleted() for x in state)
    assert [x.unsafe_buffer_pointer() for x in after] == before
    same(after, jax.jit(adamw)(*arguments))


def test_arrays_that_are_not_donated_stay_as_they_are():
    arguments = [jnp.array(x) for x in (*leaf(), *NUMBERS)]
    call = jax.jit(native(adamw, *arguments))
    before = [np.array(x) for x in arguments]
    call(*arguments)
    for x, y in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("disabled", [False, True])
def test_a_call_runs_outside_jit(disabled):
    arguments = [*leaf((7,)), *NUMBERS]
    call = native(adamw, *arguments)
    with jax.disable_jit(disabled):
        ours = call(*arguments)
    same(ours, jax.jit(adamw)(*arguments))


def test_a_call_runs_in_a_scan():
    g, *state = map(jnp.asarray, leaf())
    gradients = jnp.stack([g, 2 * g, 3 * g])

    def run(f):
        def step(carry, g):
            return f(g, *carry, *NUMBERS), None

        return jax.jit(lambda: jax.lax.scan(step, state, gradients)[0])

    call = native(adamw, g, *state, *NUMBERS)
    compiled = run(call).lower().compile().as_text()
    (body,) = re.findall(r"^%region_0.*?^}", compiled, re.M | re.S)
    assert "jopt_native" in body
    same(run(call)(), run(adamw)())


@pytest.mark.parametrize("axes", ["leaves", "numbers"])
def test_many_leaves_or_rates_at_once_are_left_to_xla(axes):
    arguments = [*leaf((5, 8)), *NUMBERS]
    one = [x[0] for x in arguments[:4]]
    axis = [0] * 4 + [None] * 7
    if axes == "numbers":
        arguments = [*one, np.linspace(0, 1, 3, dtype=np.float32), *NUMBERS[1:]]
        axis = [None] * 4 + [0] + [None] * 6
    call = native(adamw, *one, *NUMBERS)
    many = jax.vmap(call, axis)
    assert not is_native(many, *arguments)
    same(jax.jit(many)(*arguments), jax.jit(jax.vmap(adamw, axis))(*arguments))


def test_derivatives_are_those_of_the_plain_rule():
    arguments = [*leaf(), *NUMBERS]
    arguments[0] = arguments[0] + 1  # the root of 0 has no derivative

    def loss(f):
        return lambda *x: sum((y**2).sum() for y in f(*x))

    call = native(adamw, *arguments)
    wanted = (0, 1, 4, 5)
    ours, theirs = (
        jax.jit(jax.grad(loss(f), wanted))(*arguments) for f in (call, adamw)
    )
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_derivatives_by_leaves_beside_which_there_are_integers():
    def f(a, n):
        return [a * n.astype(np.float32)]

    arguments = np.ones(4, np.float32), np.int32(3)
    call = native(f, *arguments, aliases={})
    gradient = jax.grad(lambda a: call(a, arguments[1])[0].sum())(arguments[0])
    np.testing.assert_array_equal(gradient, 3)


def test_a_leaf_on_several_devices_stays_with_xla():
    mesh = Mesh(np.array(jax.devices()), "d")
    sharding = NamedSharding(mesh, PartitionSpec("d"))
    arguments = [*leaf((64,)), *NUMBERS]
    call = native(adamw, *arguments)
    sharded = [jax.device_put(x, sharding) for x in arguments[:4]] + NUMBERS
    assert not is_native(call, *sharded)
    ours = jax.jit(call)(*sharded)
    assert all(x.sharding == sharding for x in ours)
    same(ours, jax.jit(adamw)(*arguments))


def test_a_leaf_within_shard_map_stays_with_xla():
    def rule(g, p):
        return [p - g * g]

    def step(g, p):
        # A rule with scalars has equations about devices, and gets no kernel.
        return native(rule, g, p, aliases={1: 0})(g, p)

    mesh, spec = Mesh(np.array(jax.devices()), "d"), PartitionSpec("d")
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    g, p, *_ = leaf((64,))
    assert not is_native(mapped, g, p)
    same(jax.jit(mapped)(g, p), jax.jit(rule)(g, p))


def test_a_leaf_of_unknown_size_stays_with_xla():
    n = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n"), np.float32)
    assert native(adamw, *[n] * 4, *NUMBERS) is None


def test_a_program_for_another_platform_is_the_plain_rule():
    arguments = [*leaf(), *NUMBERS]
    traced = jax.jit(native(adamw, *arguments)).trace(*arguments)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "jopt_native" not in text
        assert "stablehlo.sqrt" in text


def test_a_step_on_the_host_of_a_gpu_has_kernels(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    arguments = [jax.device_put(x, jax.devices("cpu")[0]) for x in leaf()]
    assert is_native(native(adamw, *arguments, *NUMBERS), *arguments, *NUMBERS)


def test_there_is_no_kernel_when_they_are_off():
    with jopt.native_kernels(False):
        assert native(adamw, *leaf(), *NUMBERS) is None
    assert native(adamw, *leaf(), *NUMBERS) is not None


def test_the_log_says_why_a_leaf_stays_with_xla(caplog):
    jaxpr = jax.make_jaxpr(lambda a: [a - a.sum()])(np.ones(3, np.float32))
    with caplog.at_level("DEBUG", calls.__name__):
        assert calls.kernel_for(jaxpr, IN_PLACE) is None
    assert "no native kernel: reduce_sum of float32" in caplog.text
