"""Where a checkpoint may be: paths that are local, and paths that orbax understands."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jopt.checkpoint import together


def local(name: str, path: str | os.PathLike[str]) -> Path:
    """Return the absolute path; raise if it is an address, such as ``gs://…``.

    >>> local("path", "gs://bucket/run")
    Traceback (most recent call last):
    ValueError: path must be in a local or mounted file system, got \
path='gs://bucket/run'. Mount the bucket (gcsfuse, mountpoint-s3), or save to a local \
path and copy the result.
    """
    text = os.fspath(path)
    # pathlib has made one slash of two; a single letter may be a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"{name} must be in a local or mounted file system, got {name}={text!r}. "
            "Mount the bucket (gcsfuse, mountpoint-s3), or save to a local path and "
            "copy the result."
        )
    if "\0" in text:
        raise ValueError(f"{name} must not contain NUL, got {name}={text!r}")
    return Path(text).expanduser().absolute()


def target(path: Path) -> Path:
    """Return where to write: what a link at the path points to, else the path."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[Path]:
    """Give a path to the same folder in which every character means itself.

    orbax searches folders by pattern, so ``[``, ``*`` and ``?`` in a path make it find
    other folders or none. tensorstore takes ``\\`` for ``/``.
    """
    if re.fullmatch(r"[\w/.=+,@ -]*", str(folder), re.ASCII):
        yield folder
        return
    # orbax wants the same path in every process, and some of them share this folder.
    link = Path(tempfile.gettempdir()) / f"jopt-{together.new_name()}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    try:
        yield link
    finally:
        together.wait_for_all()
        link.unlink(missing_ok=True)
