"""Where a checkpoint is written until it is complete: a folder with a new name.

Two programs never write to the same place, and the name of a checkpoint may be as long
as the file system allows. The program that writes holds a lock in the folder. When the
lock is free the program was killed, and the next save beside it removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from jopt.checkpoint import seal


NAME = re.compile(r"\.jopt-[0-9a-f]{16}\.partial")
LOCK = "lock"


def unfinished_path(parent: Path, digits: str) -> Path:
    """Return where a checkpoint is written until it gets its name in ``parent``."""
    return parent / f".jopt-{digits}.partial" / "checkpoint"


class Unfinished:
    """A checkpoint that is being written, at ``path``.

    Args:
      parent: The folder in which it will be visible; made if it does not exist.
      digits: 16 hexadecimal digits for the name; the default is random.
    """

    def __init__(self, parent: Path, digits: str | None = None):
        self.path = unfinished_path(parent, digits or os.urandom(8).hex())
        folder = self._folder = self.path.parent
        _remove_leftovers(parent)
        # Another program may remove the folder as long as it is not locked.
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                folder.mkdir(exist_ok=True)
                self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
                if _lock(self._lock) is not False and (folder / LOCK).exists():
                    return
                os.close(self._lock)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, path: Path) -> None:
        """Give the complete checkpoint its name; on return the name is on disk.

        Raises:
          FileExistsError: Another program has written there meanwhile.
        """
        try:
            os.replace(self.path, path)
        except OSError as error:
            if not path.exists():
                raise
            raise FileExistsError(
                f"another program has written to {path} meanwhile: give each program "
                "a path of its own"
            ) from error
        seal.sync(path.parent)

    def close(self) -> None:
        """Remove what has not been published."""
        _remove(self._folder)
        os.close(self._lock)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed programs have left in a folder."""
    for folder in parent.glob(".jopt-*.partial"):
        if not NAME.fullmatch(folder.name) or folder.is_symlink():
            continue
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # killed before it had a lock; only an empty folder goes
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        if _lock(lock):
            _remove(folder)
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove the lock last: a folder without one would not be known as ours."""
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()


def _lock(file: int) -> bool | None:
    """Lock a file; False if it is locked, None if there are no locks here."""
    try:
        import fcntl  # which Windows lacks
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
