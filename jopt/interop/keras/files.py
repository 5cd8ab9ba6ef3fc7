"""Optimizer states from files of Keras: ``.keras``, ``.h5``, ``.weights.h5``."""

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
    """Load the state of an optimizer from a model that Keras saved, with h5py.

    Args:
      path: A ``.keras``, ``.h5`` or ``.weights.h5`` file that contains the optimizer.
        The model must be compiled and trained, because the optimizer has no weights
        before its first step.
      tx: The optimizer: the recipe that gives Keras's numbers.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``; optional if
        ``params`` is a list of arrays or one array.
      layout: The order of the weights. ``"auto"`` means the order of the version of
        Keras in a ``.keras`` file, and the only one that fits in other files.

    Returns:
      A state of ``tx``.

    Raises:
      ImportError: h5py is not installed.
      ValueError: The file has no optimizer or one of another class, or its weights do
        not fit.

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
    names = {x.lower() for x in classes}
    if class_name is not None and class_name.lower() not in names:
        raise ValueError(
            f"the optimizer in {name!r} is {class_name}, but {abbreviated(tx)} has the "
            f"state of {' or '.join(classes)}"
        )
    return set_weights(tx, state, weights, params, order=order, layout=layout)


def _read(name: str) -> tuple[list[np.ndarray], str | None, str | None]:
    """Return an optimizer's weights, and its class and Keras's version if known."""
    with open(name, "rb"):  # its error names the path; those of h5py and zipfile differ
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
            "is installed, and give the arrays to jopt.interop.keras.set_weights"
        ) from error
    try:
        opened = h5py.File(content, "r")
    except OSError as error:
        raise ValueError(
            f"{name!r} is not a model file that Keras saved, or is damaged: {error}"
        ) from error
    with opened as file:
        if "optimizer/vars" in file:
            group: Any = file["optimizer/vars"]
            return [group[str(i)][()] for i in range(len(group))], class_name
        if "optimizer_weights" not in file:
            raise ValueError(
                f"{name!r} has no optimizer weights: save the whole model, compiled, "
                "after at least one training step"
            )
        group = file["optimizer_weights"]
        weights = [group[_text(x)][()] for x in _weight_names(group.attrs)]
        config = json.loads(_text(file.attrs.get("training_config", "{}")))
        return weights, _class_name(config.get("optimizer_config"))


def _class_name(config: Any) -> str | None:
    """Return the class of an optimizer's config, inside a LossScaleOptimizer if any."""
    if not config or isinstance(config, str):  # compiled by name
        return config or None
    inner = config.get("config", {}).get("inner_optimizer")
    if inner:
        return _class_name(inner)
    name = config.get("class_name")
    return name and name.removeprefix("Custom>")  # tf_keras's addition


def _weight_names(attrs: Any) -> list[Any]:
    """Return the names of the weights; Keras splits long lists into pieces."""
    if "weight_names" in attrs:
        return list(attrs["weight_names"])
    pieces = []
    while f"weight_names{len(pieces)}" in attrs:
        pieces.append(attrs[f"weight_names{len(pieces)}"])
    return [name for piece in pieces for name in piece]


def _text(x: Any) -> str:
    return x.decode() if isinstance(x, bytes) else str(x)
