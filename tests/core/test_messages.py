"""Messages name functions; no message has an address, which differs in every run."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jopt
import jopt.interop.keras
import jopt.interop.torch
from jopt.values.arguments import text_of


def a_function(*args: Any) -> Any:
    return None


class ACallable:
    def __call__(self, path: str, leaf: Any) -> Any:
        return None


WRONG = {
    "function": a_function,
    "lambda": lambda: None,
    "partial": functools.partial(a_function, 1),
    "method": ACallable().__call__,
    "object": ACallable(),
    "list": [a_function, object()],
    "dict": {"a": a_function},
    "transformation without a recipe": jopt.GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (updates, state)
    ),
}
OF_OTHERS = (
    "Argument '",
    "Expected a callable value",
    "Cannot interpret",
    "Field elements",
    "Error interpreting argument",
    "Non-hashable static arguments",
)
ADDRESS = re.compile(r"0x[0-9a-f]{6}")


def calls(module: Any) -> dict[str, Any]:
    public = {name: getattr(module, name) for name in dir(module)}
    return {n: f for n, f in public.items() if callable(f) and not n.startswith("_")}


MODULES = [jopt, jopt.tree, jopt.projections, jopt.losses]
MODULES += [jopt.interop.keras, jopt.interop.torch]
CALLS = {
    f"{module.__name__}.{name}": f
    for module in MODULES
    for name, f in calls(module).items()
    if not (inspect.isclass(f) and issubclass(f, Exception | tuple))
}


def failures(f: Any, wrong: Any) -> list[BaseException]:
    """What a call raises with the wrong value in each place."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except ValueError:
        return []
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in plain if p.default is p.empty]
    options = [{p.name: 0.5 for p in required} | {p.name: wrong} for p in plain]
    options.append({p.name: wrong for p in required})
    found = []
    for option in options:
        args = [
            option.pop(p.name)
            for p in plain
            if p.kind is p.POSITIONAL_ONLY and p.name in option
        ]
        try:
            result = f(*args, **option)
            repr(result)
            if isinstance(result, jopt.GradientTransformation):
                result.init({"w": jnp.ones((2, 2)), "b": jnp.ones(2)})
        except Exception as error:
            found.append(error)
    return found


def is_ours(error: BaseException) -> bool:
    """Whether it is an error of jopt. JAX hides its part of a trace."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_code.co_filename if trace else ""
    return "/jopt/" in where and not str(error).startswith(OF_OTHERS)


@pytest.mark.parametrize("name", CALLS)
def test_no_message_has_an_address(name: str) -> None:
    # One of the calls switches native kernels on.
    with jopt.native_kernels(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for wrong in WRONG.values():
            for error in failures(CALLS[name], wrong):
                if is_ours(error):
                    assert not ADDRESS.search(str(error)), repr(error)


def test_functions_are_shown_by_their_names() -> None:
    assert text_of({"a": [a_function]}) == "{'a': [<function a_function>]}"
    assert text_of(object()) == "<object object>"
    assert "test_messages.ACallable object" in text_of(ACallable())
    assert (
        text_of(functools.partial(a_function, 1))
        == "functools.partial(<function a_function>, 1)"
    )
    assert "a_function" in text_of(jax.jit(a_function))
    with pytest.raises(TypeError, match=r"a rule is a pair .* a_function"):
        jopt.rules(a_function)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a_rule_of_nothing> -> 'x' chooses no leaf"):
        jopt.rules((a_rule_of_nothing, "x"), ("", "y"))({"a": jnp.ones(1)})


def a_rule_of_nothing(path: str, leaf: Any) -> bool:
    return False
