"""Where optax's functions are in jopt; see ``translations.py``.

What the calls of the installed optax are is kept in parity/optax_calls.json.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.catalogue import rows_of
from tests.parity.problem import GRADS, PARAMS, STEPS, VALUES, flat


CALLS = Path(__file__).parents[1] / "parity" / "optax_calls.json"
OPTAX_GAPS = CALLS.with_name("optax_gaps.json")
# What optax has under a name that is not here; what is in no backticks is said so.
REPLACED = {
    "bias_correction": "`tree.bias_correction`",
    "incremental_update": "`params_ema`, `tree.update_moment`",
    "init_empty_state": "not needed: a chain leaves out members without state",
    "inject_stateful_hyperparams": "`tunable`, or a schedule",
    "measure_with_ema": "`monitor`",
    "microbatch": "`micro_batch`",
    "named_chain": "`chain(name=…)`",
    "periodic_update": "`params_ema`, `lookahead`",
    "safe_int32_increment": "`safe_increment`",
    "safe_norm": "`tree.safe_norm`",
    "safe_root_mean_squares": "`tree.safe_root_mean_squares`",
    "schedule_free_eval_params": "`eval_params`",
    "snapshot": "`metrics`",
    "tree_map_params": "`tree.map_params`",
    "update_infinity_moment": "`tree.update_infinity_moment`",
    "update_moment": "`tree.update_moment`",
    "update_moment_per_elem_norm": "`tree.update_moment_per_elem_norm`",
    "with_extra_args_support": "not needed: every update takes extra arguments",
}


def called(function: Any) -> list[list[str]] | None:
    """The arguments and defaults of a function, as text."""
    found = []
    for p in inspect.signature(function).parameters.values():
        default = getattr(p.default, "__name__", None) or repr(p.default)
        default = "…" if len(default) > 40 or "lambda" in default else default
        required = p.default is p.empty
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            found.append([p.name, "" if required else default])
    return found


def calls_of_optax() -> dict[str, Any]:
    """The public functions of the installed optax, and their arguments."""
    import optax
    import optax.contrib

    known = {
        name: function
        for module in (optax, optax.contrib)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }
    return {name: called(known[name]) for name in sorted(known)}


def table(theirs: dict[str, Any]) -> str:
    """Where optax's functions are, if not here by the same call."""
    lines = ["| optax | jopt |", "|---|---|"]
    for name, arguments in theirs.items():
        if name in REPLACED:
            lines.append(f"| `{name}` | {REPLACED[name]} |")
        if not hasattr(jopt, name):
            continue
        given, ours = dict(arguments), dict(called(getattr(jopt, name)))
        apart = [n for n, x in given.items() if ours.get(n) != x]
        if not apart:
            continue
        new = [n for n in ours if n not in given] if apart[-1] not in ours else []
        right = [call(ours, n) for n in [*(n for n in apart if n in ours), *new]]
        left = ", ".join(call(given, n) for n in apart)
        right = f"`{name}({', '.join(right)})`" if right else "not needed"
        lines.append(f"| `{name}({left})` | {right} |")
    return "\n".join(lines) + "\n"


def call(arguments: dict[str, str], name: str) -> str:
    """An argument with its default."""
    return f"{name}={arguments[name]}" if arguments[name] else name


def alike(theirs: dict[str, Any]) -> str:
    """How many of optax's functions are here by the same call."""
    here = [n for n in theirs if hasattr(jopt, n)]
    ours = {n: dict(called(getattr(jopt, n))) for n in here}
    same = [n for n in here if all(ours[n].get(a) == x for a, x in theirs[n])]
    rows = [r for r in rows_of("optax") if r.oracle == r.jopt]
    return (
        f"Of the {len(theirs)} functions of optax and optax.contrib {len(here)} are "
        f"here by their names, {len(same)} of them with all arguments and defaults; "
        f"{len(rows)} settings with the very same text are compared step by step.\n"
    )


def record() -> None:
    """Keep what the calls of the installed optax are."""
    release = f"optax {version('optax')}"
    lines = [f"{json.dumps(n)}: {json.dumps(x)}" for n, x in calls_of_optax().items()]
    text = ",\n".join([f'"version": {json.dumps(release)}', *lines])
    CALLS.write_text("{\n" + text + "\n}\n")


# The arguments of calls that need some; the others are called with their defaults.
GIVEN = {"learning_rate": 0.1, "decay": 0.9, "max_delta": 0.5, "threshold": 0.5}
# What needs more than gradients, or is no transformation.
OTHERS = {"chain", "named_chain", "noisy_sgd", "scale_by_muon", "sophia"}
# Why the same call gives other numbers; the door has optax's.
WHY = {
    "adafactor": "without a rate, optax takes steps of 1, jopt the paper's",
    "adan": "optax weighs differences by `1 - b2`, and has another `eps_root`",
    "dadapt_adamw": "optax corrects Adam's bias, the authors do not",
    "galore": "optax projects the longer side, the authors the shorter",
    "muon": "optax corrects the bias of Muon's momentum, and takes NAdamW for the rest",
    "prodigy": "optax corrects Adam's bias, the authors do not",
    "rprop": "optax takes each step one step late",
    "scale_by_adan": "see `adan`",
    "scale_by_ademamix": "another `alpha`",
    "scale_by_distance_over_gradients": "optax keeps parameters in float32",
    "scale_by_galore": "see `galore`",
    "scale_by_lbfgs": "pairs without curvature, as of these gradients, are left out",
    "scale_by_rprop": "see `rprop`",
    "scale_by_yogi": "optax starts the first moment at the value of the second",
    "yogi": "optax starts the first moment at the value of the second",
}


def measured_gaps(names: Iterable[str] | None = None) -> dict[str, float]:
    """How far the same call ends in jopt and in optax, where it does.

    In shares of the longest way that a parameter goes in optax, in float64.
    """
    import optax
    import optax.contrib

    gaps = {}
    known = json.loads(CALLS.read_text()).keys() if names is None else names
    for name in sorted(set(known) - OTHERS):
        theirs = getattr(optax, name, None) or getattr(optax.contrib, name, None)
        ours = getattr(jopt, name, None)
        if not (inspect.isfunction(theirs) and inspect.isfunction(ours)):
            continue
        required = {
            n for f in (theirs, ours) for n, default in called(f) if not default
        }
        if not required <= GIVEN.keys():
            continue
        with (
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            made = [f(**{n: GIVEN[n] for n in required}) for f in (theirs, ours)]
            if not all(hasattr(tx, "update") for tx in made):
                continue
            if "value_fn" in made[1].needs.accepts:  # these gradients have no function
                continue
            expected, actual = map(ends, made)
        way = np.abs(expected - flat(PARAMS)).max()
        gap = float(np.abs(actual - expected).max() / way) if way else 0.0
        if gap > 1e-5:
            gaps[name] = float(f"{gap:.2g}")
    return gaps


def ends(tx: Any) -> np.ndarray:
    """Where twenty steps lead."""
    needs = getattr(tx, "needs", None)
    if needs:
        takes_value = "value" in needs.accepts
    else:
        takes_value = type(tx).__name__ == "GradientTransformationExtraArgs"
    params = {n: jnp.asarray(p) for n, p in PARAMS.items()}
    state = tx.init(params)
    for i in range(STEPS):
        grads = {n: jnp.asarray(g[i]) for n, g in GRADS.items()}
        extra = {"value": jnp.asarray(VALUES[i])} if takes_value else {}
        updates, state = tx.update(grads, state, params, **extra)
        params = {n: p + updates[n] for n, p in params.items()}
    return flat(params)


def gaps_table(gaps: dict[str, float]) -> str:
    """The same calls with other numbers, and why."""
    lines = ["| the same call | apart by | why |", "|---|---|---|"]
    lines += [f"| `{name}` | {gap:g} | {WHY[name]} |" for name, gap in gaps.items()]
    return "\n".join(lines) + "\n"
