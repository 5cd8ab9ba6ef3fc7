"""What is compiled is cached, and what cannot be compiled is left to XLA."""

import concurrent.futures
import hashlib
import os

import jax
import numpy as np
import pytest

import jopt
from jopt.native import compilation, switch
from tests.native.adam_rule import NUMBERS, adamw, leaf, native


SOURCE = "int answer(void) {{ return {}; }}\n"


def test_a_source_is_compiled_once(monkeypatch):
    tools = compilation.toolchain()
    path = tools.library(SOURCE.format(1))
    monkeypatch.setattr(compilation.Toolchain, "_compile", None)
    assert tools.library(SOURCE.format(1)) == path
    assert tools.loaded(SOURCE.format(1))[1].answer() == 1


def test_the_name_of_a_library_depends_on_all_that_is_in_it(monkeypatch):
    tools = compilation.toolchain()
    names = {tools.library(SOURCE.format(i)).name for i in (1, 2)}
    newer = compilation.Toolchain(tools.command, "cc 99", tools.folder)
    names.add(newer.library(SOURCE.format(1)).name)
    monkeypatch.setattr(compilation, "_processor", lambda: "another processor")
    names.add(tools.library(SOURCE.format(1)).name)
    assert len(names) == 4


@pytest.mark.parametrize("length", [0, 40, -100])
def test_a_file_that_is_not_complete_is_compiled_again(length):
    tools = compilation.toolchain()
    source = SOURCE.format(f"3 + 0 * {length}")
    path = tools.library(source)
    path.write_bytes(path.read_bytes()[:length])
    assert tools.loaded(source)[1].answer() == 3


def test_threads_compile_the_same_source_at_once():
    tools = compilation.toolchain()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(tools.loaded, SOURCE.format(4)) for _ in range(4)]
        assert {f.result()[1].answer() for f in futures} == {4}
    assert not list(tools.folder.glob("new-*"))


def test_a_file_is_private_and_ends_in_its_checksum():
    path = compilation.toolchain().library(SOURCE.format(1))
    content = path.read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    assert path.parent.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("cache", ["file", "open to all", "home without a folder"])
def test_without_a_cache_folder_there_is_a_temporary_one(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "open to all" / "jopt").mkdir(parents=True)
    (tmp_path / "open to all" / "jopt").chmod(0o777)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    home = cache == "home without a folder"
    monkeypatch.setenv("XDG_CACHE_HOME", "" if home else str(tmp_path / cache))
    compilation._folder.cache_clear()
    folder = compilation.toolchain().folder
    compilation._folder.cache_clear()
    assert tmp_path not in folder.parents
    assert folder.stat().st_mode & 0o77 == 0
    assert os.listdir(folder) == []
    folder.rmdir()


def test_a_compiler_that_does_not_exist_is_no_compiler(monkeypatch):
    monkeypatch.setenv("CC", "/nonexistent/cc -m64")
    found = jopt.native_kernels()
    assert not switch.enabled()
    assert repr(found) == (
        "native_kernels(): of no effect, there is no C compiler CC=/nonexistent/cc -m64"
    )
    assert native(adamw, *leaf(), *NUMBERS) is None


def test_without_any_compiler_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", "")
    compilation._compiler.cache_clear()
    assert "install gcc or clang, or set CC" in repr(jopt.native_kernels())


def test_another_system_has_no_native_kernels(monkeypatch):
    monkeypatch.setattr(compilation.sys, "platform", "darwin")
    assert repr(jopt.native_kernels()).endswith("are for Linux, this is darwin")


def test_what_does_not_compile_is_left_to_xla(monkeypatch, caplog):
    monkeypatch.setattr(
        "jopt.native.calls.c_source", lambda closed: "#include <none.h>"
    )
    with caplog.at_level("DEBUG", "jopt.native.calls"):
        assert native(adamw, *leaf(), *NUMBERS) is None
    assert "none.h" in caplog.text


def test_a_folder_that_cannot_be_written_any_more_is_no_error(tmp_path):
    tools = compilation.toolchain()
    gone = compilation.Toolchain(tools.command, tools.version, tmp_path / "gone")
    with pytest.raises(compilation.Unavailable, match="gone"):
        gone.library(SOURCE.format(5))


def test_a_program_finds_a_kernel_on_disk_that_no_one_has_loaded(monkeypatch):
    # As in a process that loads a program which another one has compiled.
    def f(a, s):
        return [a * s + np.float32(0.625)]

    a, s = np.ones(10, np.float32), np.float32(2)
    tools = compilation.toolchain()
    monkeypatch.setattr(
        "jopt.native.calls.kernel", lambda _, source: tools.library(source).stem
    )
    call = native(f, a, s, aliases={})
    np.testing.assert_array_equal(jax.jit(call)(a, s)[0], 2.625)


def test_a_kernel_that_is_nowhere_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr("jopt.native.calls.kernel", lambda *_: "0" * 32)
    call = native(adamw, *leaf(), *NUMBERS)
    with pytest.raises(Exception, match=f"its kernel {'0' * 32} is not in the cache"):
        jax.block_until_ready(jax.jit(call)(*leaf(), *NUMBERS))


def test_no_path_can_be_the_name_of_a_kernel(monkeypatch):
    source = "void kernel(void) {}\n"
    path = compilation.toolchain().library(source)
    name = f"../{path.parent.name}/{path.stem}"
    monkeypatch.setattr("jopt.native.calls.kernel", lambda *_: name)
    call = native(adamw, *leaf(), *NUMBERS)
    with pytest.raises(Exception, match="is not in the cache"):
        jax.block_until_ready(jax.jit(call)(*leaf(), *NUMBERS))


def test_the_handler_is_compiled_for_this_jaxlib(monkeypatch):
    sources = []

    def loaded(self, source):
        sources.append(source)
        raise compilation.Unavailable("for this test")

    monkeypatch.setattr(compilation, "_handler", None)
    monkeypatch.setattr(compilation.Toolchain, "loaded", loaded)
    assert repr(jopt.native_kernels()).endswith("for this test")
    monkeypatch.setattr(compilation.jaxlib.version, "__version__", "99.1")
    jopt.native_kernels()
    assert sources[0] != sources[1]
    assert "jaxlib 99.1" in sources[1]
