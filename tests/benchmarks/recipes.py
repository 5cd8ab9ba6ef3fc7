"""What is measured: recipes in the words of each library, and trees of parameters."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tests.public import public


class Recipe(NamedTuple):
    """A way to train.

    Attributes:
      floor: The bytes that have to move per float32 parameter and step: the parameter
        and the state in and out, the gradient in, once. Where a norm of the update
        scales it, either what the update is made of is read again, or the update is
        written and read. 0 where arithmetic takes the time.
      jopt: The call.
      optax: The call, where it is another; None if optax has none.
      keras: The call, if Keras has it.
      torch: The call without the parameters, if torch has it.
      heavyball, pytorch_optimizer: The call without the parameters, if these have it.
      every: The number of steps after which the work repeats, such as the number of
        gradients to a change of the parameters.
      last: The floor of the last of these.
    """

    floor: float
    jopt: str
    optax: str | None = ""
    keras: str = ""
    torch: str = ""
    heavyball: str = ""
    pytorch_optimizer: str = ""
    every: int = 1
    last: float = 0


COSINE = "CosineDecay(0.0, 10_000, warmup_target=1e-3, warmup_steps=100)"
GROUPS = "partition({0: adamw(1e-3), 1: adamw(2e-3), 2: adamw(3e-3)}, thirds)"
RECIPES = {
    "sgd": Recipe(12, "sgd(0.1)", "", "SGD(0.1)", "SGD(0.1)"),
    "sgd+momentum": Recipe(
        20, "sgd(0.1, 0.9)", "", "SGD(0.1, momentum=0.9)", "SGD(0.1, momentum=0.9)"
    ),
    "adamw": Recipe(28, "adamw(1e-3)", "", "AdamW(1e-3)", "AdamW(1e-3)"),
    # The norm is that of all gradients: they are read once more. torch without a
    # schedule, which takes it no time.
    "clip+adamw+cosine": Recipe(
        32,
        "chain(clip_by_global_norm(1.0), adamw("
        "warmup_cosine_decay_schedule(0.0, 1e-3, 100, 10_000)))",
        "",
        f"AdamW({COSINE}, global_clipnorm=1.0)",
        "clipped(AdamW(1e-3), 1.0)",
    ),
    "lion": Recipe(20, "lion(1e-3)", "", "Lion(1e-3)"),
    "lamb": Recipe(40, "lamb(1e-3)", "", "Lamb(1e-3)"),
    # It reads the gradient for its means, again for the norm of the update, and again
    # for the update; and the parameter for its norm.
    "adafactor": Recipe(24, "adafactor(1e-3)", "", "Adafactor(1e-3)"),
    "adafactor, unscaled": Recipe(
        20, "adafactor(1e-3, multiply_by_parameter_scale=False)"
    ),
    "apply_if_finite+adamw": Recipe(
        32,
        "apply_if_finite(adamw(1e-3), 3)",
        "",
        "LossScaleOptimizer(AdamW(1e-3), initial_scale=1.0)",
    ),
    "adamw+params_ema": Recipe(
        36,
        "chain(adamw(1e-3), params_ema(0.999))",
        "with_average(adamw(1e-3), 0.999)",
        "AdamW(1e-3, use_ema=True, ema_momentum=0.999)",
    ),
    # The first gradient is stored, two are added, and the last one makes a step.
    "accumulate+adamw": Recipe(
        (8 + 12 + 12 + 32) / 4,
        "accumulate(adamw(1e-3), 4)",
        "MultiSteps(adamw(1e-3), 4)",
        "AdamW(1e-3, gradient_accumulation_steps=4)",
        every=4,
        last=32,
    ),
    "nadamw": Recipe(28, "nadamw(1e-3)", "", "Nadam(1e-3, weight_decay=1e-4)"),
    "adabelief": Recipe(28, "adabelief(1e-3)"),
    "schedule_free_adamw": Recipe(
        28, "schedule_free_adamw(1e-3)", "", "ScheduleFreeAdamW(1e-3)"
    ),
    # The same direction in both, for optax's nesterov is another.
    "muon": Recipe(
        0,
        "muon(0.02, nesterov=False, adam_learning_rate=1e-3)",
        "",
        "Muon(0.02, adam_lr_ratio=0.05, nesterov=False)",
        heavyball="Muon(0.02, nesterov=False)",
    ),
    # As heavyball multiplies.
    "muon, bfloat16": Recipe(
        0,
        "muon(0.02, ns_dtype='bfloat16', nesterov=False, adam_learning_rate=1e-3)",
        None,
        heavyball="Muon(0.02, nesterov=False)",
    ),
    "muon, gram": Recipe(
        0,
        "muon(0.02, ns_method='gram', nesterov=False, adam_learning_rate=1e-3)",
        None,
        heavyball="Muon(0.02, nesterov=False)",
    ),
    # All refresh their bases every ten steps; jopt some of them in each step.
    "soap": Recipe(
        0,
        "soap(3e-3)",
        heavyball="SOAP(3e-3, precondition_frequency=10, use_precond_schedule=False)",
        pytorch_optimizer="SOAP(3e-3, precondition_frequency=10)",
        every=10,
    ),
    "psgd_kron": Recipe(
        0,
        "psgd_kron(1e-3, preconditioner_update_probability=0.1)",
        heavyball="PSGDKron(1e-3, preconditioner_update_probability=0.1)",
        every=10,
    ),
    "partition+adamw": Recipe(28, GROUPS),
    "adan": Recipe(44, "adan(1e-3)"),
    "adopt": Recipe(28, "adopt(1e-3)"),
    "adadelta": Recipe(28, "adadelta(1.0)", "", "Adadelta(1.0)", "Adadelta(1.0)"),
    "ademamix": Recipe(36, "ademamix(1e-3)"),
    "amsgrad": Recipe(
        36, "amsgrad(1e-3)", "", "Adam(1e-3, amsgrad=True)", "Adam(1e-3, amsgrad=True)"
    ),
}
# Both moments of AdamW in a format.
FORMATS = {
    name: Recipe(floor, f"adamw(1e-3, mu_dtype={name!r}, nu_dtype={name!r})")
    for name, floor in [("bfloat16_sr", 20), ("float8_e4m3", 16), ("int8", 16.06)]
}


def thirds(params: Any) -> Any:
    """Labels 0, 1, 2, 0, …"""
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten([i % 3 for i in range(len(leaves))])


def of_jopt(recipe: Recipe) -> Any:
    import jopt

    return eval(recipe.jopt, {**public(jopt), "thirds": thirds})


def of_optax(recipe: Recipe) -> Any:
    """The transformation, or None if optax has none."""
    import optax
    import optax.contrib

    def with_average(tx, decay):
        """As a training loop of optax keeps an average of the parameters."""

        def init(params):
            return tx.init(params), jax.tree.map(jnp.copy, params)

        def update(updates, state, params):
            inner, average = state
            updates, inner = tx.update(updates, inner, params)
            new = optax.apply_updates(params, updates)
            average = optax.incremental_update(new, average, 1 - decay)
            return updates, (inner, average)

        return optax.GradientTransformation(init, update)

    if recipe.optax is None:
        return None
    own = {"thirds": thirds, "with_average": with_average}
    scope = collections.ChainMap(own, vars(optax), vars(optax.contrib))
    try:
        return eval(recipe.optax or recipe.jopt, {}, scope)
    except NameError:
        return None


# Trees, of shapes.


def shape(*axes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def dense(n: int, m: int, *stack: int) -> dict[str, Any]:
    return {"kernel": shape(*stack, n, m), "bias": shape(*stack, m)}


def norm(d: int, *stack: int) -> dict[str, Any]:
    return {"scale": shape(*stack, d), "bias": shape(*stack, d)}


def block(d: int, *stack: int) -> dict[str, Any]:
    """A block of a transformer; all blocks of one that is scanned, as one."""
    return {
        "ln_1": norm(d, *stack),
        "attn": dense(d, 3 * d, *stack),
        "proj": dense(d, d, *stack),
        "ln_2": norm(d, *stack),
        "fc": dense(d, 4 * d, *stack),
        "out": dense(4 * d, d, *stack),
    }


def blocks() -> dict[str, Any]:
    """GPT-2 small without its embeddings: 144 leaves, 48 matrices."""
    return {f"h{i}": block(768) for i in range(12)}


def gpt2_small() -> dict[str, Any]:
    """148 leaves, 124 million parameters."""
    d = 768
    embed = {"wte": shape(50257, d), "wpe": shape(1024, d)}
    return {**embed, **blocks(), "ln_f": norm(d)}


def scanned() -> dict[str, Any]:
    """The same model, with the layers along the first axis of 12 leaves."""
    d = 768
    embed = {"wte": shape(50257, d), "wpe": shape(1024, d)}
    return {**embed, "h": block(d, 12), "ln_f": norm(d)}


def vit() -> dict[str, Any]:
    """ViT-S/16: 22 million parameters."""
    d = 384
    blocks = {f"block_{i}": block(d) for i in range(12)}
    patch = {"kernel": shape(16, 16, 3, d), "bias": shape(d)}
    rest = {"cls": shape(1, 1, d), "positions": shape(1, 197, d), "patch": patch}
    return {**rest, **blocks, "ln": norm(d), "head": dense(d, 1000)}


def recommender() -> dict[str, Any]:
    """Twelve tables and two small networks: 64 million parameters."""
    rows = [500_000, 200_000, 100_000, 100_000, 50_000, 20_000, 10_000, 5_000, 2_000]
    tables = {f"table_{i}": shape(n, 64) for i, n in enumerate([*rows, 500, 100, 20])}
    bottom = {"a": dense(13, 512), "b": dense(512, 256), "c": dense(256, 64)}
    top = {"a": dense(142, 512), "b": dense(512, 256), "c": dense(256, 1)}
    return {"tables": tables, "bottom": bottom, "top": top}


def equal_leaves(n: int, *axes: int) -> dict[str, Any]:
    return {f"layer_{i}": shape(*axes) for i in range(n)}


class Tree(NamedTuple):
    """A tree of shapes, what it is, and how often it is compiled."""

    shapes: Callable[[], Any]
    title: str
    compiles: int = 1

    def count(self) -> int:
        """The number of parameters."""
        return sum(math.prod(x.shape) for x in jax.tree.leaves(self.shapes()))


TREES = {
    "gpt2_small": Tree(gpt2_small, "GPT-2 small"),
    "leaf_64m": Tree(lambda: equal_leaves(1, 8192, 8192), "one matrix"),
    "leaves_100": Tree(lambda: equal_leaves(100, 32, 32), "100 of 32 x 32", 5),
    "leaves_1000": Tree(lambda: equal_leaves(1000, 32, 32), "1,000 of 32 x 32", 5),
    "leaves_3000": Tree(lambda: equal_leaves(3000, 32, 32), "3,000 of 32 x 32", 3),
    "matrices_200": Tree(lambda: equal_leaves(200, 64, 64), "200 of 64 x 64", 3),
    "block": Tree(lambda: block(768), "one block of GPT-2 small"),
    "blocks": Tree(blocks, "the twelve blocks of GPT-2 small"),
    "vit": Tree(vit, "ViT-S/16, 12 blocks"),
    "scanned": Tree(scanned, "GPT-2 small with stacked layers"),
    "recommender": Tree(recommender, "twelve tables of embeddings, two networks"),
}


def filled(shapes: Any, value: float = 0.02) -> Any:
    return jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), shapes)


# Steps, and what they are compiled for.


def pair(library: Any, tx: Any) -> Callable[..., Any]:
    """``update`` and ``apply_updates``, of jopt or optax."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    return step


def fused(tx: Any) -> Callable[..., Any]:
    """``jopt.step``, which does both at once."""
    import jopt

    return lambda params, state, grads: jopt.step(tx, grads, state, params, donate=True)


def lowered(
    step: Callable[..., Any], tx: Any, params: Any, sharding: Any = None
) -> Any:
    """A step that donates parameters and state, lowered for shapes.

    Args:
      step: The function.
      tx: The transformation, for the state.
      params: The tree of shapes.
      sharding: The device to compile for; None is the one that runs.
    """
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        (params, jax.eval_shape(tx.init, params), params),
    )
    return jax.jit(step, donate_argnums=(0, 1)).lower(*args)


def temporary_bytes(tx: Any, params: Any) -> int:
    """What ``update`` and ``apply_updates`` keep beyond arguments and results."""
    import jopt

    compiled = lowered(pair(jopt, tx), tx, params).compile()
    return compiled.memory_analysis().temp_size_in_bytes
