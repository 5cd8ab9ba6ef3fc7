"""Shared libraries from C sources, by the system's compiler, cached on disk.

A library is compiled for the processor of this machine. Its name is a hash of all that
it depends on, so machines with other processors or compilers can share a cache. A file
ends in a checksum of itself, and appears complete or not at all; so processes can
compile the same source at the same time.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import jaxlib.version


class Unavailable(Exception):
    """Nothing can be compiled here; the message says why."""


FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")
FLAGS += ("-ffp-contract=off", "-fwrapv", "-shared", "-fPIC")
# What -march=native looks at.
PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
PROCESSOR += ("CPU implementer", "CPU architecture", "CPU variant", "CPU part")
PROCESSOR += ("Features",)
CHECKSUM = 32  # bytes
TARGET = "jopt_native"


@dataclass(frozen=True)
class Toolchain:
    """A C compiler, and the folder for what it makes."""

    command: tuple[str, ...]
    version: str
    folder: Path

    def library(self, source: str) -> Path:
        """The file of a source's library, compiled if it is not there yet.

        Raises:
          Unavailable: The compiler, or writing the file, failed.
        """
        parts = [source, *self.command, *FLAGS, self.version, _processor()]
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        path = self.folder / f"{name[:32]}.so"
        if not _is_complete(path):
            self._compile(source, path)
        return path

    def _compile(self, source: str, path: Path) -> None:
        command = [*self.command, *FLAGS, f"-I{jax.ffi.include_dir()}", "-x", "c", "-"]
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="new-") as new:
                made = Path(new, path.name)
                run = subprocess.run(
                    [*command, "-o", str(made), "-lm"],
                    input=source.encode(),
                    capture_output=True,
                    check=False,
                )
                if run.returncode:
                    text = run.stderr.decode(errors="replace").strip()
                    raise Unavailable(f"{self.command[0]} failed: {text[-2000:]}")
                content = made.read_bytes()
                made.write_bytes(content + hashlib.sha256(content).digest())
                os.replace(made, path)
        except OSError as error:
            raise Unavailable(
                f"compiling into {self.folder} failed: {error}"
            ) from error

    def loaded(self, source: str) -> tuple[str, ctypes.CDLL]:
        """The name of a source's library, and the library.

        Raises:
          Unavailable: It cannot be compiled or loaded.
        """
        path = self.library(source)
        try:
            return path.stem, ctypes.CDLL(str(path))
        except OSError as error:
            raise Unavailable(f"{path} cannot be loaded: {error}") from error


def _is_complete(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    checksum = hashlib.sha256(content[:-CHECKSUM]).digest()
    return len(content) > CHECKSUM and content[-CHECKSUM:] == checksum


@functools.cache
def _processor() -> str:
    """What distinguishes the processor of this machine from others."""
    lines = {platform.machine()}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() in PROCESSOR:
                lines.add(line)
    except OSError:
        lines.add(platform.node())
    return "\n".join(sorted(lines))


def toolchain() -> Toolchain:
    """What compiles here, as the environment has it now.

    The compiler is ``CC`` if that is set, else ``cc``, ``gcc`` or ``clang``; the folder
    is ``jopt`` in ``XDG_CACHE_HOME`` or ``~/.cache``, or a temporary one if that cannot
    be written, or can be by others.

    Raises:
      Unavailable: The system is not Linux, or has no C compiler that works.
    """
    if sys.platform != "linux":
        raise Unavailable(f"native kernels are for Linux, this is {sys.platform}")
    command, version = _compiler(os.environ.get("CC", ""))
    return Toolchain(command, version, _folder(os.environ.get("XDG_CACHE_HOME", "")))


@functools.cache
def _compiler(wanted: str) -> tuple[tuple[str, ...], str]:
    commands = [tuple(shlex.split(wanted))] if wanted.strip() else []
    commands = commands or [("cc",), ("gcc",), ("clang",)]
    for command in commands:
        found = shutil.which(command[0])
        if found is None:
            continue
        command = (found, *command[1:])
        version = subprocess.run([*command, "--version"], capture_output=True)
        if version.returncode == 0:
            return command, version.stdout.decode(errors="replace")
    if wanted.strip():
        raise Unavailable(f"there is no C compiler CC={wanted}")
    raise Unavailable("there is no C compiler: install gcc or clang, or set CC")


@functools.cache
def _folder(cache: str) -> Path:
    try:
        base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
        folder = base / "jopt"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise OSError("what others can write is not safe to run")
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # Path.home() of a user that has none
        folder = tempfile.mkdtemp(prefix="jopt-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


_handler: ctypes.CDLL | None = None


def handler(tools: Toolchain) -> ctypes.CDLL:
    """The library with the target of XLA's calls, which is registered with JAX.

    Raises:
      Unavailable: It cannot be compiled or loaded.
    """
    global _handler
    if _handler is None:
        source = Path(__file__).with_name("handler.c").read_text()
        headers = f"// The headers are those of jaxlib {jaxlib.version.__version__}.\n"
        _, library = tools.loaded(headers + source)
        capsule = jax.ffi.pycapsule(library.jopt_native)
        jax.ffi.register_ffi_target(TARGET, capsule, platform="cpu")
        _handler = library
    _handler.jopt_set_folder(os.fsencode(tools.folder))
    return _handler


@functools.lru_cache(maxsize=4096)
def kernel(tools: Toolchain, source: str) -> str:
    """Compile and load the function ``kernel`` of a source, and return its name.

    Raises:
      Unavailable: It cannot be compiled or loaded.
    """
    name, library = tools.loaded(source)
    function = ctypes.cast(library.kernel, ctypes.c_void_p)
    handler(tools).jopt_add_kernel(name.encode(), function)
    return name
