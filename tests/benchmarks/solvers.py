"""minimize beside scipy, optax and torch: ``python -m tests.benchmarks.solvers``.

Each minimizes each problem by L-BFGS with 10 remembered steps in float64, until no
element of the gradient is above 1e-6. They take turns. The first call compiles; torch
and scipy call a compiled value and gradient. `--docs` writes docs/solvers.md. Compare
with one thread: ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.benchmarks.minima import Problem, problems
from tests.benchmarks.report import table
from tests.tools.pages import ROOT, write


GTOL, MEMORY, MOST = 1e-6, 10, 15_000
PAGE = ROOT / "docs" / "solvers.md"
KEPT = Path(__file__).with_suffix(".json")
# What a run returns: the value, the largest element of the gradient, and counts.
Found = tuple[float, float, int, int]
Run = Callable[[], Found]


def with_jopt(problem: Problem) -> Run:
    x0 = jnp.asarray(problem.x0)
    fun = renewed(problem.fun)

    def run():
        r = jopt.minimize(
            fun, x0, gtol=GTOL, ftol=0.0, memory=MEMORY, max_iterations=MOST
        )
        return measured(r.value, r.grad, r.iterations, r.evaluations)

    return run


def with_scipy(problem: Problem) -> Run:
    from scipy.optimize import minimize

    graded = jax.jit(jax.value_and_grad(renewed(problem.fun)))

    def fun(x):
        value, grad = graded(x)
        return float(value), np.asarray(grad)

    options = {"gtol": GTOL, "ftol": 0.0, "maxcor": MEMORY}
    options |= {"maxiter": MOST, "maxfun": 10 * MOST}

    def run():
        r = minimize(fun, problem.x0, jac=True, method="L-BFGS-B", options=options)
        return measured(r.fun, r.jac, r.nit, r.nfev)

    return run


def with_optax(problem: Problem) -> Run:
    import optax

    fun, x0 = renewed(problem.fun), jnp.asarray(problem.x0)
    tx = optax.lbfgs(memory_size=MEMORY)
    graded = optax.value_and_grad_from_state(fun)

    def step(carry):
        x, state, evaluations = carry
        value, grad = graded(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        searched = optax.tree.get(state, "num_linesearch_steps")
        evaluations = evaluations + searched.astype(jnp.int32)
        return optax.apply_updates(x, updates), state, evaluations

    def goes_on(carry):
        _, state, _ = carry
        count = optax.tree.get(state, "count")
        steepest = jnp.max(jnp.abs(optax.tree.get(state, "grad")))
        return (count == 0) | ((count < MOST) & (steepest > GTOL))

    @jax.jit
    def solve(x):
        x, state, evaluations = jax.lax.while_loop(
            goes_on, step, (x, tx.init(x), jnp.int32(1))
        )
        get = optax.tree.get
        return get(state, "value"), get(state, "grad"), get(state, "count"), evaluations

    return lambda: measured(*solve(x0))


def with_torch(problem: Problem) -> Run:
    import torch

    graded = jax.jit(jax.value_and_grad(renewed(problem.fun)))
    # Its first step ever imports more of torch.
    zero = torch.zeros(1, requires_grad=True)
    torch.optim.LBFGS([zero]).step(lambda: zero.sum())

    def run():
        x = torch.tensor(problem.x0, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [x],
            max_iter=MOST,
            max_eval=10 * MOST,
            tolerance_grad=GTOL,
            tolerance_change=0.0,
            history_size=MEMORY,
            line_search_fn="strong_wolfe",
        )

        def closure():
            value, grad = graded(x.detach().numpy())
            x.grad = torch.tensor(np.asarray(grad))
            return torch.tensor(float(value))

        optimizer.step(closure)
        value, grad = graded(x.detach().numpy())
        state = optimizer.state[x]
        return measured(value, grad, state["n_iter"], state["func_evals"])

    return run


PEERS = {
    "jopt": with_jopt,
    "scipy": with_scipy,
    "optax": with_optax,
    "torch": with_torch,
}


def renewed(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Another function that does the same, for which nothing is compiled yet."""
    return lambda x: fun(x)


def measured(value: Any, grad: Any, iterations: Any, evaluations: Any) -> Found:
    steepest = float(np.max(np.abs(np.asarray(grad))))
    return float(value), steepest, int(iterations), int(evaluations)


def timed(run: Run) -> tuple[float, Found]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def measure(names: list[str], peers: list[str], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, problem in problems().items():
        if names and name not in names:
            continue
        runs = {peer: PEERS[peer](problem) for peer in peers}
        first = {peer: timed(run) for peer, run in runs.items()}
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for _ in range(rounds):
            for peer, run in runs.items():
                times[peer].append(timed(run)[0])
        for peer, (seconds, found) in first.items():
            value, steepest, iterations, evaluations = found
            row = {"problem": name, "size": len(problem.x0), "peer": peer}
            row |= {"value": value, "steepest": steepest, "iterations": iterations}
            row |= {"evaluations": evaluations, "first": seconds}
            rows.append(row | {"time": float(np.median(times[peer]))})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def report(found: dict[str, Any]) -> str:
    """The tables of the page, and what they come to."""
    by_problem: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        by_problem.setdefault(row["problem"], {})[row["peer"]] = row
    peers = list(dict.fromkeys(row["peer"] for row in found["rows"]))
    others = [peer for peer in peers if peer != "jopt"]

    def steps(row):
        mark = "" if row["steepest"] <= GTOL else " *"
        return f"{row['iterations']} / {row['evaluations']}{mark}"

    counts = table(
        ["iterations / evaluations", "size", *peers],
        [
            [name, str(rows["jopt"]["size"])] + [steps(rows[peer]) for peer in peers]
            for name, rows in by_problem.items()
        ],
    )
    times = table(
        ["ms", *peers, *(f"first, {peer}" for peer in peers)],
        [
            [name]
            + [f"{1e3 * rows[peer]['time']:.3g}" for peer in peers]
            + [f"{1e3 * rows[peer]['first']:.0f}" for peer in peers]
            for name, rows in by_problem.items()
        ],
    )

    def ratios(key, other):
        return [rows["jopt"][key] / rows[other][key] for rows in by_problem.values()]

    kinds = ["evaluations", "time", "first"]
    medians = table(
        ["median of jopt / other", *kinds],
        [
            [other] + [f"{np.median(ratios(kind, other)):.2f}" for kind in kinds]
            for other in others
        ],
    )
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    facts = f"- {found['date']}, {found['cores']} cores, {versions}.\n"
    facts += f"- Medians of {found['rounds']} rounds, in which all take turns.\n"
    facts += f"- `*`: an element of the gradient is above {GTOL} at the end.\n"
    return f"{facts}\n{medians}\n\n{counts}\n\n{times}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="*", default=[])
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--docs", action="store_true", help="write docs/solvers.md")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    here = [p for p in arguments.peers if p == "jopt" or importlib.util.find_spec(p)]
    libraries = ["jopt", "jax", *(p for p in here if p != "jopt")]
    found = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        "rows": measure(arguments.problems, here, arguments.rounds),
    }
    print(report(found))
    if arguments.docs:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        write(PAGE, "solvers", "tests.benchmarks.solvers --docs", report(found))


if __name__ == "__main__":
    main()
