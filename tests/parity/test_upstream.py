"""The suites of Keras and torch on the doors: the tool, and the page that it wrote."""

import functools
import re

import jax
import pytest

from jopt.interop import torch as door
from tests.tools import upstream, upstream_of_optax, upstream_torch


# A variable that its gradient overwrites is overwritten by each gradient. With
# accumulation, Keras overwrites it by the largest of them.
FAILING: set[str] = set()


def test_the_page_has_no_other_failures():
    page = upstream.PAGE.read_text()
    assert page.count("| failed |\n") == 2
    numbers = re.findall(r"^\| all \|.*\| (\d+) \|$", page, re.MULTILINE)
    assert [int(n) for n in numbers] == [len(FAILING), 0]
    _, _, failed = page.partition("Failed:\n\n")
    names = re.findall(r"^- `\S+` \w+::(\w+): ", failed, re.MULTILINE)
    assert set(names) == FAILING


def test_every_reason_explains_a_difference_of_the_page():
    page = upstream.PAGE.read_text()
    for reason in upstream.REASONS.values():
        assert re.search(rf"^- {re.escape(reason)} \(\d", page, re.MULTILINE), reason


def test_what_fails_is_counted_and_listed_apart_from_what_differs(monkeypatch):
    monkeypatch.setattr(upstream, "REASONS", {"a_test.py::T::test_b": "On purpose."})
    cases = [
        upstream.Case("a_test.py", "T::test_a", "failed", "wrong"),
        upstream.Case("a_test.py", "T::test_b", "failed", "other"),
        upstream.Case("a_test.py", "T::test_c", "passed"),
    ]
    assert upstream.outcomes(cases) == {"failed": 1, "different": 1, "passed": 1}
    assert upstream.differences(cases) == (
        "- On purpose. (1: `a_test.py` T::test_b)\n\n"
        "Failed:\n\n- `a_test.py` T::test_a: wrong\n"
    )


@pytest.fixture
def sgd():
    pytest.importorskip("torch", exc_type=ImportError)
    common = pytest.importorskip("torch.testing._internal.common_optimizers")
    (info,) = (info for info in common.optim_db if info.name == "SGD")
    with jax.enable_x64(True):
        yield info


def test_a_configuration_of_torch_passes_with_its_numbers_only(sgd, monkeypatch):
    kwargs = {"momentum": 0.9, "dampening": 0.5}
    schedulers = sgd.scheduler_inputs[3]
    assert upstream_torch.compared(sgd, kwargs, schedulers)["outcome"] == "passed"
    monkeypatch.setattr(door, "SGD", functools.partial(door.SGD, weight_decay=1e-9))
    assert upstream_torch.compared(sgd, kwargs, schedulers)["outcome"] == "failed"


def test_the_page_of_optax_explains_all_that_does_not_pass():
    page = upstream_of_optax.PAGE.read_text()
    (numbers,) = re.findall(r"^\| all \| (.*) \|$", page, re.MULTILINE)
    tests, passed, different, failed = map(int, numbers.split(" | "))
    assert failed == 0 and tests == passed + different
    assert passed > 0.97 * tests
    for reason in upstream_of_optax.REASONS.values():
        assert f"\n- {reason} (" in page, reason
