"""Whether leaves are updated by native kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jopt.values import arguments


if TYPE_CHECKING:
    from jopt.native.compilation import Toolchain

_toolchain: Toolchain | None = None


def native_kernels(enable: bool = True) -> NativeKernels:
    """Update leaves on the CPU by loops that the system's C compiler makes, or stop it.

    Such a loop reads and writes every array of a leaf once, in place, in all threads.
    XLA:CPU makes a loop for each array that it writes. A kernel is compiled at its
    first use, and kept in ``~/.cache/jopt`` (or in ``$XDG_CACHE_HOME/jopt``).

    Leaves stay with XLA where no such loop can be had or would not be exact: without a
    C compiler (``$CC``, ``cc``, ``gcc`` or ``clang``), on other systems than Linux, in
    programs for GPUs and TPUs, on several devices, in low precision, and for rules that
    are not elementwise. The ``repr`` of the result says whether there is a compiler.

    Numbers may differ from XLA's in the last bits.

    Args:
      enable: Whether programs that are traced from now on use native kernels. Those
        that were traced before stay as they are.

    Returns:
      A value that prints what was found. As a context manager, it sets the switch back
      to what it was before the call.

    Raises:
      TypeError: ``enable`` is not a bool.

    >>> import jopt
    >>> with jopt.native_kernels(False):
    ...     pass
    >>> jopt.native_kernels(False)
    native_kernels(False)
    """
    return NativeKernels(arguments.flag("enable", enable))


class NativeKernels:
    """What `native_kernels` found, and a context that ends."""

    def __init__(self, enable: bool) -> None:
        global _toolchain
        self._before, self._enable, self._missing = _toolchain, enable, ""
        _toolchain = None
        if enable:
            from jopt.native import compilation

            try:
                found = compilation.toolchain()
                compilation.handler(found)
                _toolchain = found
            except compilation.Unavailable as error:
                self._missing = str(error)
        self._toolchain = _toolchain

    def __enter__(self) -> NativeKernels:
        return self

    def __exit__(self, *_: Any) -> None:
        global _toolchain
        _toolchain = self._before

    def __repr__(self) -> str:
        if not self._enable:
            return "native_kernels(False)"
        if self._toolchain is None:
            return f"native_kernels(): of no effect, {self._missing}"
        version = self._toolchain.version.partition("\n")[0]
        return f"native_kernels(): by {version}, kept in {self._toolchain.folder}"


def enabled() -> bool:
    """Whether native kernels are on and there is a compiler."""
    return _toolchain is not None


def toolchain() -> Toolchain | None:
    """What compiles native kernels, if they are on."""
    return _toolchain
