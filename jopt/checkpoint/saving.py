"""``save`` and ``restore``: one checkpoint, in any of the formats."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from jopt.checkpoint import files, folders
from jopt.checkpoint.contents import Read, Restored, checked, pack, unpack
from jopt.checkpoint.index import Index
from jopt.checkpoint.places import local
from jopt.core.transformation import GradientTransformation


def save(
    path: str | Path,
    *,
    params: Any,
    opt_state: Any,
    tx: GradientTransformation | None = None,
    step: int | None = None,
    rng: Any = None,
    metadata: Any = None,
) -> Path:
    """Write a checkpoint; on return it is complete and on disk.

    A folder must not exist yet. A file atomically replaces an older one. A link stays,
    and what it points to is written.

    Args:
      path: A folder, without a suffix, or a file with the suffix ``.npz``,
        ``.safetensors`` or ``.msgpack``.
      params: The parameters, any tree of arrays.
      opt_state: The state of the optimizer.
      tx: The optimizer. The checkpoint then includes its recipe, so that `restore` can
        report changed hyperparameters.
      step: Number of steps done.
      rng: A random key, or a dict of them by name.
      metadata: Further data to save, as plain JSON.

    Returns:
      The absolute path.

    Raises:
      FileExistsError: The folder exists, or another program has written it meanwhile.
      TypeError: ``metadata`` is not plain JSON, or ``rng`` is not a key.
      ValueError: The suffix is unknown, the path is an address such as ``gs://…``, or
        the format cannot hold the name of an array.

    >>> import tempfile, jax.numpy as jnp
    >>> params, tx = {"w": jnp.ones(3)}, jopt.sgd(0.1, momentum=0.9)
    >>> path = Path(tempfile.mkdtemp()) / "run.npz"
    >>> path == save(path, params=params, opt_state=tx.init(params), tx=tx, step=5)
    True
    >>> restore(path, params=params, tx=tx).step
    5
    """
    path = _absolute(path)
    arrays, index = pack(params, opt_state, tx, step, rng, metadata)
    if path.suffix:
        files.write(path, arrays, index)
    else:
        folders.start(path, arrays, index)()
    return path


def restore(
    path: str | Path,
    *,
    params: Any,
    tx: GradientTransformation | None = None,
    strict: bool = True,
    migrate: Sequence[Any] = (),
    hyperparams: Literal["checkpoint", "recipe"] = "checkpoint",
    shardings: Any = None,
) -> Restored:
    """Read a checkpoint into given structures, dtypes and shardings.

    No array shares its buffer, so the first step may donate all of them
    (``donate_argnums``).

    Args:
      path: The path that was given to `save`.
      params: Arrays, or the ``jax.ShapeDtypeStruct`` of ``jax.eval_shape``, with the
        structure, dtypes and shardings to return. The optimizer state gets the
        shardings of the compiled ``tx.init``.
      tx: The optimizer; None skips its state.
      strict: If True, every parameter and every slot must be both in the checkpoint and
        in what is restored. If False, missing parameters keep the values they have in
        ``params``, missing slots start from ``init``, what is only in the checkpoint is
        ignored, and warnings list all of it.
      migrate: Rules `jopt.Rename`, `jopt.Drop`, `jopt.Reset` and `jopt.Cast`, in the
        order of application. They see slots as in `jopt.state_dict`, and parameters as
        ``params/…``. They do not change ``metadata``, which no template describes.
      hyperparams: Whose hyperparameters to use where they differ, ``"checkpoint"`` or
        ``"recipe"``.
      shardings: A tree like the optimizer state, as from
        `jopt.sharding.state_shardings`; None means the shardings of the compiled
        ``tx.init``.

    Returns:
      ``(params, opt_state, step, rng, metadata)`` as a named tuple.

    Raises:
      FileNotFoundError: There is no such checkpoint, or its index is missing.
      ValueError: The checkpoint is damaged; the message names the files or arrays. Or
        it does not fit the parameters or the optimizer; the message lists the entries
        that are missing, unexpected or of another shape or dtype.

    >>> import tempfile, jax.numpy as jnp
    >>> params, tx = {"w": jnp.ones(3)}, jopt.adam(1e-3)
    >>> path = Path(tempfile.mkdtemp()) / "run.safetensors"
    >>> _ = save(path, params=params, opt_state=tx.init(params), tx=tx)
    >>> longer = {"w": jnp.ones(4)}
    >>> restore(path, params=longer, tx=tx)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: params do not fit the checkpoint ...run.safetensors:
      params/w is float32[4], was saved as float32[3]
    Did you mean migrate=[jopt.Reset(pattern='/w$')]?
    ...
    >>> found = restore(path, params=longer, tx=tx, migrate=[jopt.Reset("/w$")])
    >>> found.params["w"]
    Array([1., 1., 1., 1.], dtype=float32)
    """
    path = _absolute(path)
    with opened(path) as (index, read):
        return unpack(
            path,
            index,
            read,
            params,
            tx,
            strict=strict,
            migrate=migrate,
            hyperparams=hyperparams,
            shardings=shardings,
        )


def opened(path: Path) -> AbstractContextManager[tuple[Index, Read]]:
    """Give the index of a checkpoint, and a function to read arrays."""
    return (files if path.suffix else folders).opened(path)


def verified(path: str | Path) -> dict[str, Any]:
    """Read a whole checkpoint and compare every checksum.

    Args:
      path: The path that was given to `save`.

    Returns:
      Shape, dtype and checksum of each array, by name.

    Raises:
      FileNotFoundError: There is no such checkpoint.
      ValueError: It is damaged; the message names files or arrays.
    """
    path = _absolute(path)
    with opened(path) as (index, read):
        entries = index["entries"]
        checked(path, read(dict.fromkeys(entries)), entries)
    return entries


def _absolute(path: str | Path) -> Path:
    absolute = local("path", path)
    if absolute.suffix and absolute.suffix not in files.FORMATS:
        suffixes = ", ".join(files.FORMATS)
        raise ValueError(
            f"path must have no suffix (a folder) or one of {suffixes}, got "
            f"path={str(path)!r}"
        )
    return absolute
