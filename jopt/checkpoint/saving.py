"""``save`` and ``restore``: one checkpoint, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jopt.checkpoint import files, folders
from jopt.checkpoint.contents import Restored, pack, unpack
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
    """Write a checkpoint; when this returns, it is complete and on disk.

    A folder must not exist yet; a file takes the place of an older one in one instant.

    Args:
      path: Without a suffix a folder, with ``.npz``, ``.safetensors`` or ``.msgpack`` a
        file.
      params: The parameters, any tree of arrays.
      opt_state: The state of the optimizer.
      tx: The optimizer; its recipe is then written down, and `restore` can tell when
        another one has other hyperparameters.
      step: How many steps were done.
      rng: A random key, or a dict of them by name.
      metadata: What else is to be kept, as plain JSON.

    Returns:
      The path, absolute.

    Raises:
      FileExistsError: There is such a folder.
      TypeError: The metadata are not plain JSON, or ``rng`` is no key.
      ValueError: The suffix is unknown.

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
) -> Restored:
    """Read a checkpoint into the structures, dtypes and shardings that are asked for.

    All arrays come in buffers of their own, so the first step may be given their memory
    (``donate_argnums``).

    Args:
      path: As it was saved to.
      params: Parameters as they are wanted: arrays, or the ``jax.ShapeDtypeStruct`` of
        ``jax.eval_shape``, whose ``sharding`` says where they go. The optimizer state
        goes where the compiled ``tx.init`` puts it.
      tx: The optimizer; None leaves its state in the checkpoint.
      strict: Whether every slot must be in the checkpoint and every saved slot in the
        state; see `jopt.load_state_dict`.
      migrate: The rules for what has changed since; see `jopt.load_state_dict`.
      hyperparams: Whose hyperparameters to take where both have some and they differ,
        ``"checkpoint"`` or ``"recipe"``.

    Returns:
      ``(params, opt_state, step, rng, metadata)`` as a named tuple.

    Raises:
      FileNotFoundError: There is no such checkpoint, or its index is gone.
      ValueError: It is damaged, which names the files or the arrays; or it does not fit
        the parameters or the optimizer, which lists what is missing, unexpected or of
        another shape or dtype.

    >>> import tempfile, jax.numpy as jnp
    >>> params, tx = {"w": jnp.ones(3)}, jopt.adam(1e-3)
    >>> path = Path(tempfile.mkdtemp()) / "run.safetensors"
    >>> _ = save(path, params=params, opt_state=tx.init(params), tx=tx)
    >>> wanted = {"w": jnp.ones(4)}
    >>> restore(path, params=wanted, tx=tx)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: params do not fit the checkpoint ...run.safetensors:
      params/w is float32[4], was saved as float32[3]
    """
    path = _absolute(path)
    index, read = (files if path.suffix else folders).read(path)
    return unpack(
        path,
        index,
        read,
        params,
        tx,
        strict=strict,
        migrate=migrate,
        hyperparams=hyperparams,
    )


def _absolute(path: str | Path) -> Path:
    absolute = Path(path).expanduser().absolute()
    if absolute.suffix and absolute.suffix not in files.FORMATS:
        known = ", ".join(files.FORMATS)
        raise ValueError(
            f"path must have no suffix, for a folder, or one of {known}, got "
            f"path={str(path)!r}"
        )
    return absolute
