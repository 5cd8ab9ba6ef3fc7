"""Chains: the names and the structure of their state, their order, who gets what."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import jopt


WITHOUT_ROW = {
    "chain": "every optimizer is one",
}

PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.2, PARAMS)


@jopt.schedule
def chain_ramp(rate: float) -> Any:
    return lambda count: rate * (1 + jnp.asarray(count, jnp.float32))


def foreign(update: Any, state: Any = (), name: str = "foreign") -> Any:
    """A plain pair of functions, such as anybody may write."""
    update.__qualname__ = f"{name}.<locals>.update"
    return lambda params: state, update


def counting(updates: Any, state: Any, params: Any = None) -> Any:
    return updates, state + 1


def as_given(updates: Any, state: Any, params: Any = None) -> Any:
    return updates, state


chain, ema, clip, sgd, adam = jopt.chain, jopt.ema, jopt.clip, jopt.sgd, jopt.adam
ADAM = ["scale_by_adam", "scale_by_learning_rate"]

# A chain, and the names in its state.
NAMES = [
    (chain(), []),
    (chain(clip(1.0), jopt.identity()), []),
    (sgd(0.1), ["scale_by_learning_rate"]),
    (sgd(0.1, 0.9), ["trace", "scale_by_learning_rate"]),
    (chain(adam(0.1)), ADAM),
    (chain(chain(chain(adam(0.1)), clip(1.0)), jopt.identity()), ADAM),
    (chain(ema(0.9), adam(0.1), ema(0.8)), ["ema", *ADAM, "ema_2"]),
    (chain(ema(0.9), chain(ema(0.8), ema(0.7))), ["ema", "ema_2", "ema_3"]),
    (chain(clip(1.0), opt=adam(0.1)), ["opt"]),
    (chain(clip=clip(1.0), opt=adam(0.1)), ["opt"]),
    (chain(chain(first=ema(0.9)), ema(0.8)), ["first", "ema"]),
    (chain(ema(0.9), slow=ema(0.8), slower=ema(0.7)), ["ema", "slow", "slower"]),
    (chain(jopt.scale(2.0), jopt.scale(chain_ramp(1.0))), ["scale_2"]),
    (chain(foreign(counting, 0), adam(0.1)), ["foreign", *ADAM]),
    (chain(foreign(as_given, ()), adam(0.1)), ADAM),
    (chain(foreign(counting, 0), foreign(counting, 0)), ["foreign", "foreign_2"]),
    (chain(noise=foreign(counting, 0)), ["noise"]),
    (chain(optax.scale_by_adam(), sgd(0.1)), ADAM),
    (chain(optax.identity(), sgd(0.1)), ["scale_by_learning_rate"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tx", "names"), NAMES, ids=[",".join(n) or "none" for _, n in NAMES]
)
def test_the_state_is_a_dict_by_name_of_the_members_that_have_state(
    tx: Any, names: list[str]
) -> None:
    state = tx.init(PARAMS)
    assert type(state) is dict
    assert list(state) == names
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        _, after = jax.jit(tx.update)(GRADS, state, PARAMS)
    assert set(after) == set(names)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        after, jax.tree.map(jnp.asarray, state)
    )


def test_a_chain_with_a_name_keeps_its_members_in_a_dict_of_its_own() -> None:
    tx = chain(clip(1.0), opt=chain(ema(0.9), adam(0.1)))
    assert list(tx.init(PARAMS)["opt"]) == ["ema", *ADAM]


def test_the_states_of_members_come_in_the_order_of_the_chain() -> None:
    tx = chain(ema(0.9), opt=adam(0.1), avg=ema(0.5))
    state = tx.init(PARAMS)
    _, after = tx.update(GRADS, state)
    assert list(after) == list(state) == ["ema", "opt", "avg"]
    assert state["ema"].count == 0  # what was given is not changed


# The optimizer as first written, and what may be done to it later.
LATER = {
    "as it was": adam(0.1),
    "in a chain": chain(adam(0.1)),
    "clipped": chain(jopt.clip_by_global_norm(1.0), clip(1.0), adam(0.1)),
    "with weight decay": jopt.adamw(0.1, weight_decay=0.1, mask="kernel"),
    "with weight decay by hand": chain(jopt.add_decayed_weights(0.1), adam(0.1)),
    "scheduled": adam(chain_ramp(0.1)),
    "tunable": adam(jopt.tunable(0.1)),
    "with other numbers": adam(0.2, 0.8, 0.9, 1e-5, nesterov=True),
    "with a trust ratio": chain(adam(0.1), jopt.scale_by_trust_ratio()),
    "with a foreign member": chain(foreign(as_given), adam(0.1)),
}


@pytest.mark.parametrize("tx", LATER.values(), ids=LATER)
def test_an_old_state_fits_the_optimizer_that_it_became(tx: Any) -> None:
    old = LATER["as it was"]
    _, state = old.update(GRADS, old.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal_structs(tx.init(PARAMS), state)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(PARAMS), state)
    updates, after = tx.update(GRADS, state, PARAMS)
    chex.assert_trees_all_equal_structs(after, state)
    assert after["scale_by_adam"].count == 2
    chex.assert_tree_all_finite(updates)


def test_members_act_one_after_the_other() -> None:
    decay, double = jopt.add_decayed_weights(0.5), jopt.scale(2.0)
    for tx, expected in [
        (chain(decay, double), lambda g, p: 2 * (g + 0.5 * p)),
        (chain(double, decay), lambda g, p: 2 * g + 0.5 * p),
        (chain(a=double, b=decay), lambda g, p: 2 * g + 0.5 * p),
        (chain(chain(double), chain(decay)), lambda g, p: 2 * g + 0.5 * p),
        (chain(double, foreign(lambda u, s, p=None: (negated(u), s)), decay),
         lambda g, p: -2 * g + 0.5 * p),
    ]:  # fmt: skip
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        wanted = jax.tree.map(expected, GRADS, PARAMS)
        chex.assert_trees_all_close(updates, wanted, rtol=1e-6)


def negated(tree: Any) -> Any:
    return jax.tree.map(jnp.negative, tree)


def test_an_empty_chain_leaves_the_updates_as_they_are() -> None:
    updates, state = chain().update(GRADS, chain().init(PARAMS))
    chex.assert_trees_all_equal(updates, GRADS)
    assert state == {}


MEMBERS = [
    jopt.clip_by_global_norm(0.1),
    jopt.ema(0.9),
    jopt.add_decayed_weights(0.1, "kernel"),
    jopt.scale_by_adam(nesterov=True),
    jopt.clip_by_global_norm(0.5),  # a new group: it looks at the whole tree
    jopt.trace(chain_ramp(0.1)),
    jopt.stateless(lambda updates, params: negated(updates)),
    jopt.scale_by_learning_rate(jopt.tunable(0.1)),
]


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_members_that_share_a_kernel_do_what_they_do_alone(jit: Any) -> None:
    together = chain(*MEMBERS)
    state, states = together.init(PARAMS), [tx.init(PARAMS) for tx in MEMBERS]
    for t in range(1, 4):
        expected = jax.tree.map(lambda g, t=t: t * g, GRADS)
        updates, state = jit(together.update)(expected, state, PARAMS)
        for i, tx in enumerate(MEMBERS):
            expected, states[i] = jit(tx.update)(expected, states[i], PARAMS)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    alone = dict(zip(together.children, states, strict=True))
    for name, after in state.items():
        chex.assert_trees_all_close(after, alone[name], rtol=1e-5)


# Foreign members and extra arguments.


def test_a_foreign_member_gets_its_state_and_the_parameters() -> None:
    def pull(updates: Any, state: Any, p: Any = None) -> Any:
        return jax.tree.map(lambda u, x: u + state * x, updates, p), state + 1.0

    tx = chain(sgd(1.0), pull=foreign(pull, jnp.float32(2.0)))
    state = tx.init(PARAMS)
    for factor in (2.0, 3.0):
        updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        wanted = jax.tree.map(lambda g, p, f=factor: -g + f * p, GRADS, PARAMS)
        chex.assert_trees_all_close(updates, wanted, rtol=1e-6)


def test_a_member_may_be_any_object_with_init_and_update() -> None:
    class Doubler:
        def init(self, params: Any) -> Any:
            return ()

        def update(self, updates: Any, state: Any, params: Any = None) -> Any:
            return jax.tree.map(lambda u: 2 * u, updates), state

    updates, _ = chain(Doubler(), sgd(1.0)).update(GRADS, sgd(1.0).init(PARAMS))
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -2 * g, GRADS))


def recorder(got: dict[str, Any], name: str, signature: str) -> Any:
    """A foreign pair that notes the extra arguments it gets."""
    scope: dict[str, Any] = {}
    names = [n.split("=")[0].strip(" *") for n in signature.split(",") if n.strip(" *")]
    noted = ", ".join(f"{n}={n}" for n in names)
    exec(
        f"def update(updates, state, params=None, {signature}):\n"
        f"    note({noted})\n    return updates, state",
        {"note": lambda **extra: got.update({name: extra})},
        scope,
    )
    return foreign(scope["update"])


def test_each_member_gets_the_arguments_that_it_declares() -> None:
    got: dict[str, Any] = {}
    tx = chain(
        recorder(got, "value", "*, value"),
        recorder(got, "both", "value=None, loss=None"),
        recorder(got, "all", "**rest"),
        inner=chain(recorder(got, "grad", "grad=5")),
        last=sgd(1.0),
    )
    assert tx.needs.accepts == {"params", "value", "loss", "grad"}
    tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1, grad=2, other=3)
    assert got == {
        "value": {"value": 1},
        "both": {"value": 1, "loss": None},
        "all": {"rest": {"value": 1, "grad": 2, "other": 3}},
        "grad": {"grad": 2},
    }


def test_two_members_can_compute_their_scalars_from_one_argument() -> None:
    def by_value(factor: float) -> Any:
        return jopt.leafwise(
            lambda g, *, s: s * g, lambda value: {"s": factor * jnp.asarray(value)}
        )

    tx = chain(by_value(2.0), adam(0.1), by_value(3.0))
    plain, _ = adam(0.1).update(GRADS, adam(0.1).init(PARAMS))
    doubled, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), value=0.5)
    # Adam forgets the size of its gradient, but not its sign.
    wanted = jax.tree.map(lambda u: 1.5 * u, plain)
    chex.assert_trees_all_close(doubled, wanted, rtol=1e-6)


def test_init_gives_the_same_state_under_jit_and_as_shapes() -> None:
    tx = chain(jopt.clip_by_global_norm(1.0), ema(0.9), opt=adam(chain_ramp(0.1)))
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(jax.jit(tx.init)(PARAMS), state)
    shapes = jax.eval_shape(tx.init, jax.eval_shape(lambda: PARAMS))
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
