"""Pictures are drawn without a screen, and closed."""

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def without_a_screen():
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before, "a picture changed the settings"
