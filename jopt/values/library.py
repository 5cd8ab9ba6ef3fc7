"""What the library declares before it is used, so that to import it costs nothing.

`jopt/__init__.py` says here which names there are, what loads them, and how to read the
configs of other libraries. The registry and the configs look here when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any


# All public names; what imports one of them, which registers it if it is a factory; and
# what imports the doors to other libraries, with factories of their own.
names: Collection[str] = ()
load: Callable[[str], Any]
load_doors: Callable[[], Any]

# How to read a dict that has one of these keys: the forms of other libraries. The
# second argument has functions by name, or is None.
readers: dict[str, Callable[[Mapping[str, Any], Any], Any]] = {}


def declare(
    names_: Collection[str], load_: Callable[[str], Any], doors: Callable[[], Any]
) -> None:
    """Make known which names there are; see above."""
    global names, load, load_doors
    names, load, load_doors = names_, load_, doors
