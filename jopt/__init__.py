"""jopt: functional optimizers for JAX.

tx = jopt.adamw(learning_rate=1e-3)
state = tx.init(params)
updates, state = tx.update(grads, state, params)
params = jopt.apply_updates(params, updates)

The public names are listed in ``__init__.pyi``, by subject.
"""

import importlib as _importlib

from jopt._version import __version__ as __version__
from jopt.values import library as _library
from jopt.values.page import public_page as _public_page


__getattr__, __dir__, __all__ = _public_page(__name__, __file__)


def _load_doors() -> None:
    doors = ("interop.keras", "interop.torch", "interop.torch.lr_scheduler")
    for package in (*doors, "sharding"):
        page = _importlib.import_module(f"jopt.{package}")
        for name in page.__all__:
            getattr(page, name)


# A factory is known by its name before the module that it is in has been imported.
_library.declare(__all__, __getattr__, _load_doors)
# A dict that names a class is Keras's, and is read by the door to Keras.
_library.readers["class_name"] = lambda config, custom_objects: (
    _importlib.import_module("jopt.interop.keras").deserialize(config, custom_objects)
)
