"""What importing jopt costs, and that its docstrings tell the truth."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import jopt
from tests.public import public


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(jopt.__path__, "jopt.")
    if not module.name.endswith("__main__")
)
# An argument for which help() sends the reader elsewhere.
BARE_REFERENCE = re.compile(r"^  [^:\n]*: See `[^`]*`\.?$", re.M)
PUBLIC = sorted(name for name in public(jopt) if not name.startswith("_"))


def test_importing_jopt_imports_no_other_library() -> None:
    code = "import sys, jopt; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    lazy = {"chex", "flax", "keras", "matplotlib", "optax", "orbax", "sklearn", "torch"}
    assert not (lazy | {"jax", "numpy"}) & set(loaded)  # not even what it needs


@pytest.mark.parametrize("name", ["jopt", *MODULES])
def test_the_examples_in_the_docstrings_are_right(name: str) -> None:
    if name == "jopt.interop.keras.model_optimizer":
        pytest.importorskip("keras", exc_type=ImportError)
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=flags, extraglobs={"jopt": jopt})
    assert result.failed == 0


DOORS = [
    "interop.keras",
    "interop.optax",
    "interop.torch",
    "interop.torch.lr_scheduler",
]


@pytest.mark.parametrize(
    "package",
    [
        "tree",
        "projections",
        "losses",
        "checkpoint",
        "sharding",
        "plot",
        "inspect",
        *DOORS,
    ],
)
def test_help_explains_every_argument(package: str) -> None:
    page = importlib.import_module(f"jopt.{package}")
    functions = {n: x for n, x in public(page).items() if not inspect.isclass(x)}
    for name, value in functions.items():
        if inspect.isfunction(value) or hasattr(value, "__signature__"):
            text = inspect.getdoc(value) or ""
            for parameter in inspect.signature(value).parameters:
                assert re.search(rf"^  \**{parameter}: .", text, re.M), (
                    name,
                    parameter,
                )
            assert not BARE_REFERENCE.search(text), name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_has_a_complete_docstring(name: str) -> None:
    value = getattr(jopt, name)
    if not inspect.isfunction(value):
        return
    text = inspect.getdoc(value) or ""
    assert ">>>" in text, "an example"
    assert not BARE_REFERENCE.search(text), "an argument that is not explained"
    parameters = [p for p in inspect.signature(value).parameters.values()]
    for parameter in parameters:
        assert parameter.annotation is not parameter.empty, parameter.name
        stars = {parameter.VAR_POSITIONAL: r"*", parameter.VAR_KEYWORD: r"**"}
        assert f"{stars.get(parameter.kind, '')}{parameter.name}:" in text
    assert inspect.signature(value).return_annotation is not inspect.Signature.empty
    assert "Returns:" in text or len(text.split("\n\n")[0].splitlines()) == 1
