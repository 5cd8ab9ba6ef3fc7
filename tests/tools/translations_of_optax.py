"""Where optax's functions are in jopt; see ``translations.py``.

What the calls of the installed optax are is kept in parity/optax_calls.json.
"""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jopt
from tests.catalogue import rows_of


CALLS = Path(__file__).parents[1] / "parity" / "optax_calls.json"
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
