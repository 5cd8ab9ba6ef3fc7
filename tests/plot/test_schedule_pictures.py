"""``jopt.plot.schedules``: lines have the values, phases begin where the call says."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.plot.phases import end, phases
from tests.plot.picture import by_label, check, legend


STEPS = {"warmup_steps": 100, "total_steps": 1000}
COSINE = jopt.warmup_cosine(1e-3, **STEPS)
WSD = jopt.warmup_stable_decay(1e-3, decay_steps=200, **STEPS)


def in_python(step):
    return 5e-4 if step < 50 else 1e-4


def test_a_line_has_the_values_of_its_schedule_also_of_one_with_an_if():
    ax = jopt.plot.schedules(
        {"cosine": COSINE, "if": in_python, "constant": 2e-4}, steps=120
    )
    lines = by_label(ax)
    assert list(lines) == legend(ax) == ["cosine", "if", "constant"]
    for name, schedule in (("cosine", COSINE), ("constant", lambda _: 2e-4)):
        x, y = lines[name].get_data()
        assert (x[0], x[-1]) == (0, 120)
        np.testing.assert_allclose(y, jnp.asarray(schedule(x.astype(int))), 1e-6)
    x, y = lines["if"].get_data()
    assert y[x == 49] == np.float32(5e-4) and y[x == 50] == np.float32(1e-4)
    assert ax.get_xlabel() == "step" and ax.get_ylabel() == "learning rate"
    check(ax)


def test_ten_schedules_have_ten_lines_that_differ_also_in_grey():
    ten = [jopt.linear_schedule(1.0, 0.1 * i, 100) for i in range(10)]
    ax = jopt.plot.schedules(*ten)
    lines = by_label(ax)
    looks = [(str(x._dash_pattern), x.get_color()) for x in lines.values()]
    assert len(set(looks)) == 10
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks))
    assert "".join(legend(ax)[0].split()) == "".join(repr(ten[0]).split())
    check(ax)


def test_epochs_and_a_logarithmic_axis_that_ends_below_a_rate_of_zero():
    ax = jopt.plot.schedules(COSINE, steps_per_epoch=100, log=True)
    assert ax.get_xlabel() == "epoch" and ax.get_xlim() == (0, 10)
    assert ax.get_yscale() == "log" and ax.get_ylim()[0] == pytest.approx(1e-8)
    (line,) = by_label(ax).values()
    assert line.get_ydata().min() == pytest.approx(1e-8)  # step 0, a rate of 0
    check(ax)
    with pytest.raises(ValueError, match="no value of these schedules is positive"):
        jopt.plot.schedules({"zero": 0.0}, steps=10, log=True)


def test_phases_that_all_share_have_names_and_others_dots():
    ax = jopt.plot.schedules(WSD)
    assert [text.get_text() for text in ax.texts] == ["warmup", "stable", "decay"]
    assert len(ax.patches) == 2
    ax = jopt.plot.schedules({"a": COSINE, "b": WSD})
    assert not ax.texts and not ax.patches
    dots = [x.get_xdata().tolist() for x in ax.get_lines() if x.get_marker() == "o"]
    assert dots == [[100], [100, 800]]


@pytest.mark.parametrize(
    ("schedule", "starts"),
    [
        (WSD, [0, 100, 800, 1000]),
        (jopt.warmup_constant_schedule(0.0, 1.0, 5), [0, 5]),
        (jopt.warmup_cosine(1.0, warmup_steps=0, total_steps=9), [0, 9]),
        (jopt.warmup_exponential_decay_schedule(0.0, 1.0, 5, 9, 0.5, 10), [0, 5, 15]),
        (jopt.linear_onecycle_schedule(100, 1.0), [0, 30, 85, 100]),
        (jopt.onecycle_schedule(1.0, total_steps=100), [0, 29, 99]),
        (
            jopt.onecycle_schedule(1.0, total_steps=100, three_phase=True),
            [0, 29, 58, 99],
        ),
        (jopt.cyclic_schedule(0.0, 1.0, 300, 200), [0, 500, 1000]),
        (jopt.cosine_decay_restarts(1.0, 200), [0, 200, 600, 1400]),
        (jopt.piecewise_constant([3, 7], [1.0, 0.5, 0.1]), [0, 3, 7]),
        (jopt.piecewise_constant_schedule(1.0, {9: 0.5}), [0, 9]),
        (jopt.join_schedules([COSINE, WSD], [500]), [0, 100, 500, 600, 1300]),
        (-2.0 * WSD, [0, 100, 800, 1000]),
        (jopt.multiply_schedules([0.5, COSINE]), [0, 100, 1000]),
        (jopt.swa_schedule(COSINE, 700, 0.1), [0, 100, 700]),
        (jopt.micro_step_schedule(COSINE, 4), [0, 25, 250]),
        (jopt.epoch_schedule(jopt.piecewise_constant([2], [1.0, 0.5]), 50), [0, 100]),
        (jopt.exponential_decay(1.0, 10, 0.5), []),
        (in_python, []),
    ],
    ids=lambda x: getattr(getattr(x, "recipe", None), "name", None),
)
def test_phases_begin_where_the_call_says(schedule, starts):
    assert [phase.start for phase in phases(schedule, 1500)] == starts


def test_the_number_of_steps_is_that_of_the_longest_schedule_or_asked_for():
    assert end(COSINE) == 1000
    assert jopt.plot.schedules(
        COSINE, jopt.linear_schedule(1.0, 0.0, 40)
    ).get_xlim() == (
        0,
        1000,
    )
    with pytest.raises(ValueError, match=r"steps must be given.* 'endless' goes on"):
        jopt.plot.schedules(
            {"a": COSINE, "endless": jopt.exponential_decay(1.0, 9, 0.5)}
        )
    with pytest.raises(ValueError, match="steps must be >= 1, got steps=0"):
        jopt.plot.schedules(COSINE, steps=0)


def test_what_is_no_schedule_is_an_error_that_says_where():
    with pytest.raises(ValueError, match="schedules must be one or more, got none"):
        jopt.plot.schedules()
    with pytest.raises(TypeError, match=r"schedules\['a'\] cannot be drawn: adam\("):
        jopt.plot.schedules({"a": jopt.adam(1e-3)}, steps=3)
    with pytest.raises(TypeError, match="Call it: schedules"):
        jopt.plot.schedules(jopt.warmup_cosine, steps=3)
    with pytest.raises(ValueError, match="two of schedules have the label"):
        jopt.plot.schedules(COSINE, COSINE)
    with pytest.raises(ValueError, match="width must be > 0"):
        jopt.plot.schedules(COSINE, width=0)


def test_axes_of_ones_own_keep_their_figure():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 4))
    assert jopt.plot.schedules(COSINE, ax=ax) is ax
    assert figure.get_size_inches().tolist() == [6, 4]
    with pytest.raises(TypeError, match="ax must be Axes of matplotlib"):
        jopt.plot.schedules(COSINE, ax=figure)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'jopt\[plot\]'"):
        jopt.plot.schedules(COSINE)
