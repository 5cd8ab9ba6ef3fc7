"""Every test of this folder runs with native kernels, in a cache of its own."""

from collections.abc import Iterator

import pytest

import jopt
from jopt.native import compilation, switch


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that takes the place of ``~/.cache``."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def kernels(cache: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    with jopt.native_kernels() as found:
        if not switch.enabled():
            pytest.skip(str(found))
        yield
    compilation._compiler.cache_clear()
