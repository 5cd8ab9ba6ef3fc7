"""The optimizer in a file that Keras saved: ``.keras``, ``.h5``, ``.weights.h5``."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.keras.inner import multi
from jopt.interop.keras.layouts import Layout
from jopt.interop.keras.weights import set_weights
from jopt.interop.keras.weights_table import row_of
from jopt.interop.shared.parameter_order import Permuted
from jopt.interop.shared.state_view import View
from jopt.values.arguments import abbreviated


def load(
    path: str | os.PathLike[str],
    tx: GradientTransformation,
    params: Params,
    *,
    order: Sequence[str | Permuted] | None = None,
    layout: Layout | Literal["auto"] = "auto",
) -> OptState:
    """The state of an optimizer from a model that Keras saved; it needs h5py.

    Args:
      path: A ``.keras`` file, an ``.h5`` file, or a ``.weights.h5`` file with the
        optimizer in it. The model has to be compiled and trained, for before its first
        step the optimizer has no weights.
      tx: The optimizer: the recipe that gives Keras's numbers.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``; see
        `set_weights`.
      layout: The order of the weights; see `set_weights`. ``"auto"`` goes by the
        version of Keras in a ``.keras`` file, and otherwise takes the one that fits.

    Returns:
      A state of ``tx``.

    Raises:
      ImportError: There is no h5py.
      ValueError: The file has no optimizer, or another, or its weights do not fit.

    >>> import jopt
    >>> load("model.keras", jopt.sgd(0.1), [])
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'model.keras'
    """
    name = os.fspath(path)
    weights, class_name, version = _read(name)
    if layout == "auto" and version is not None:
        layout = "keras2.11" if version.startswith("2.") else "keras3"
    state = tx.init(params)
    view = View(tx, state, params, order)
    classes = ("MultiOptimizer",) if multi(view, params) else row_of(view).classes
    known = {x.lower() for x in classes}
    if class_name is not None and class_name.lower() not in known:
        raise ValueError(
            f"the optimizer in {name!r} is {class_name}, but "
            f"{abbreviated(tx)} keeps what {' and '.join(classes)} keep"
        )
    return set_weights(tx, state, weights, params, order=order, layout=layout)


def _read(name: str) -> tuple[list[np.ndarray], str | None, str | None]:
    """The weights of the optimizer in a file; its class and Keras's version or None."""
    with open(name, "rb"):  # or say what is wrong with the path
        pass
    if not zipfile.is_zipfile(name):
        return *_read_h5(name, name, None), None
    with zipfile.ZipFile(name) as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
        compiled = config.get("compile_config") or {}
        optimizer = compiled.get("optimizer")
        class_name = _class_name(optimizer)
        content = io.BytesIO(archive.read("model.weights.h5"))
        return *_read_h5(name, content, class_name), metadata.get("keras_version")


def _read_h5(
    name: str, content: Any, class_name: str | None
) -> tuple[list[np.ndarray], str | None]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"reading {name!r} needs h5py: pip install h5py. Without it, save "
            "[np.array(v) for v in optimizer.variables] with numpy.savez where Keras "
            "is, and give that to jopt.interop.keras.set_weights"
        ) from error
    try:
        opened = h5py.File(content, "r")
    except OSError as error:
        raise ValueError(
            f"{name!r} is no file of a model that Keras saved, or is damaged: {error}"
        ) from error
    with opened as file:
        if "optimizer/vars" in file:
            group: Any = file["optimizer/vars"]
            return [group[str(i)][()] for i in range(len(group))], class_name
        if "optimizer_weights" not in file:
            raise ValueError(
                f"{name!r} has no weights of an optimizer: save the whole model, "
                "compiled and after a step of training"
            )
        group = file["optimizer_weights"]
        weights = [group[_text(x)][()] for x in _weight_names(group.attrs)]
        config = json.loads(_text(file.attrs.get("training_config", "{}")))
        return weights, _class_name(config.get("optimizer_config"))


def _class_name(config: Any) -> str | None:
    """The class of the optimizer, or of the one in a LossScaleOptimizer."""
    if not config or isinstance(config, str):  # compiled by name
        return config or None
    inner = config.get("config", {}).get("inner_optimizer")
    if inner:
        return _class_name(inner)
    name = config.get("class_name")
    return name and name.removeprefix("Custom>")  # tf_keras's addition


def _weight_names(attrs: Any) -> list[Any]:
    """The names, which Keras puts in pieces if they are many."""
    if "weight_names" in attrs:
        return list(attrs["weight_names"])
    pieces = []
    while f"weight_names{len(pieces)}" in attrs:
        pieces.append(attrs[f"weight_names{len(pieces)}"])
    return [name for piece in pieces for name in piece]


def _text(x: Any) -> str:
    return x.decode() if isinstance(x, bytes) else str(x)
