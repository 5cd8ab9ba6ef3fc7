"""The public names of a package, for texts that the tests evaluate."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def public(package: ModuleType) -> dict[str, Any]:
    """Every name on the package's public page with what it stands for."""
    return {name: getattr(package, name) for name in package.__all__}
