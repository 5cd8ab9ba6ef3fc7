"""The switch of native kernels."""

import pytest

import jopt
from jopt.native import switch


def test_kernels_are_off_unless_they_are_switched_on():
    switch._toolchain, before = None, switch._toolchain
    assert not switch.enabled()
    switch._toolchain = before


def test_a_context_ends_with_what_was_before_it():
    assert switch.enabled()
    with jopt.native_kernels(False):
        assert not switch.enabled()
        with jopt.native_kernels():
            assert switch.enabled()
        assert not switch.enabled()
    assert switch.enabled()


def test_a_call_switches_for_good():
    jopt.native_kernels(False)
    assert not switch.enabled()
    jopt.native_kernels(True)
    assert switch.enabled()


def test_the_switch_prints_what_was_found(cache):
    text = repr(jopt.native_kernels())
    assert text.startswith("native_kernels(): by ")
    assert text.endswith(f", kept in {cache}/jopt")
    assert repr(jopt.native_kernels(False)) == "native_kernels(False)"


def test_only_a_bool_turns_it_on_or_off():
    with pytest.raises(TypeError, match="enable must be True or False, got"):
        jopt.native_kernels("gcc")  # type: ignore[arg-type]
