"""``jopt.plot.run`` and ``update_ratios``: panels of what a run logged."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.plot.picture import by_label, check, legend


def logged(steps=200):
    """Records as a log has them: the validation loss is measured now and then."""
    for i in range(steps):
        record = {"step": i, "loss": 2.0 * 0.98**i, "learning_rate": 1e-3 * i}
        record |= {"gradient_norm": 1.0 + i % 7, "update_norm": 1e-3, "param_norm": 9.0}
        record |= {
            "clip_factor": 0.5,
            "total_notfinite": i // 50,
            "loss_scale": 2.0**15,
        }
        yield record | ({"val_loss": 3.0} if i % 40 == 0 else {})


RECORDS = list(logged())
LABELS = ["loss", "learning rate", "norm", "clip factor", "skipped steps"]


def test_a_run_has_a_panel_for_each_kind_of_number_that_it_logged():
    axes = jopt.plot.run(RECORDS)
    assert [ax.get_ylabel() for ax in axes] == LABELS
    assert legend(axes[0]) == ["loss", "val_loss"]
    assert legend(axes[2]) == ["gradient_norm", "update_norm", "param_norm"]
    assert axes[2].get_yscale() == "log" and axes[-1].get_xlabel() == "step"
    assert all(ax.get_xlim() == (0, 199) for ax in axes)
    assert by_label(axes[0])["val_loss"].get_xdata().tolist() == [0, 40, 80, 120, 160]
    light, dark = axes[0].get_lines()[:2]
    np.testing.assert_allclose(light.get_ydata(), [x["loss"] for x in RECORDS])
    middle = [x["loss"] for x in RECORDS[98:103]]
    assert dark.get_ydata()[100] == pytest.approx(np.mean(middle))
    check(axes[0])
    assert [ax.get_ylabel() for ax in jopt.plot.run([{"loss": 1.0}])] == ["loss"]


def test_a_run_is_read_from_columns_csv_json_lines_and_a_log(tmp_path):
    few = [{"step": 3, "loss": 0.5}, {"step": 4, "loss": math.nan}, {"step": 7, "a": 1}]
    (tmp_path / "run.csv").write_text("step,loss,a\n3,0.5,\n4,nan,\n7,,1\n")
    lines = "\n".join(map(json.dumps, few))
    (tmp_path / "run.jsonl").write_text(f"{lines}\n")

    class Log:
        records = few

    columns = {"step": [3, 4, 7], "loss": [jnp.float32(0.5), math.nan, None]}
    for history in (
        few,
        tmp_path / "run.csv",
        str(tmp_path / "run.jsonl"),
        Log,
        columns,
    ):
        ((ax),) = jopt.plot.run(history)
        line, cross = by_label(ax).values()
        assert line.get_xydata().tolist() == [[3, 0.5]]
        assert cross.get_xdata().tolist() == [4] and cross.get_marker() == "x"
        assert legend(ax) == ["loss", "not finite"]
    (tmp_path / "run.jsonl").write_text('{"loss": 1}\n{"loss": \n')
    with pytest.raises(ValueError, match=r"run.jsonl, line 2 is not JSON"):
        jopt.plot.run(tmp_path / "run.jsonl")


def test_a_resumed_run_goes_forward_and_equal_numbers_are_a_line():
    again = [{"step": i, "loss": 1.0} for i in (0, 1, 2, 3, 1, 2, 3, 4)]
    ((ax),) = jopt.plot.run(again)
    assert np.all(np.diff(ax.get_lines()[0].get_xdata()) >= 0)
    assert ax.get_ylim()[0] < 1 < ax.get_ylim()[1]
    check(ax)


def test_panels_are_chosen_by_name_and_a_wrong_one_gets_a_suggestion():
    axes = jopt.plot.run(RECORDS, ["val_loss", ["loss_scale", "clip_factor"]])
    assert [ax.get_ylabel() for ax in axes] == ["loss", "value"]
    with pytest.raises(KeyError, match=r"no 'val_los'. Did you mean 'val_loss'\?"):
        jopt.plot.run(RECORDS, ["val_los"])
    with pytest.raises(
        ValueError, match=r"no loss.*\['accuracy'\].*panels=\['accuracy'\]"
    ):
        jopt.plot.run({"accuracy": [0.5]})


def test_a_history_that_is_none_is_an_error():
    for history in ([], {}, [{}], {"loss": []}, [{"step": 1}], {"loss": ["a"]}):
        with pytest.raises(ValueError, match="the history has no numbers"):
            jopt.plot.run(history)
    with pytest.raises(ValueError, match=r"equally long.*'loss': 2, 'rate': 1"):
        jopt.plot.run({"loss": [1, 2], "rate": [1]})
    for wrong in (3.0, [1.0, 2.0], {"loss": 1.0}):
        with pytest.raises(TypeError, match="history"):
            jopt.plot.run(wrong)
    with pytest.raises(
        ValueError, match="ax must be 5 Axes, one for each panel, got 1"
    ):
        import matplotlib.pyplot as plt

        jopt.plot.run(RECORDS, ax=plt.figure().subplots())


def test_ratios_are_those_that_monitor_measures_by_group():
    groups = jopt.rules(("bias", "bias"), ("", "kernel"))
    tx = jopt.monitor(jopt.sgd(1e-3), groups=groups)
    params = {"kernel": jnp.full(4, 2.0), "bias": jnp.ones(1)}
    _, state = tx.update(params, tx.init(params), params)
    ax = jopt.plot.update_ratios([jopt.metrics(state)])
    lines = by_label(ax)
    assert sorted(lines) == ["all", "bias", "kernel"]
    assert lines["bias"].get_ydata() == pytest.approx([1e-3])
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "|update| / |parameters|"
    guide = ax.get_lines()[-1]
    assert guide.get_ydata() == [1e-3, 1e-3] and guide.get_linestyle() == ":"
    check(ax)
    with pytest.raises(ValueError, match=r"no update_ratio above 0.*jopt.monitor"):
        jopt.plot.update_ratios(RECORDS)


def test_ratios_of_two_monitors_are_told_apart_by_their_paths():
    names = ["update_ratio", "a/update_ratio", "a/update_ratio/w", "update_ratio/b"]
    ax = jopt.plot.update_ratios({name: [1e-3, 1e-2] for name in names})
    assert sorted(by_label(ax)) == ["a", "all", "b", "w"]


def test_many_layers_have_a_scale_of_colours_instead_of_a_legend():
    many = {f"update_ratio/h{i}": [1e-3, 2e-3, 0.0] for i in range(48)}
    ax = jopt.plot.update_ratios(many)
    assert ax.get_legend() is None and len(by_label(ax)) == 48
    ticks = [x.get_text() for x in ax.figure.axes[1].get_yticklabels()]
    assert ticks[0] == "h0" and ticks[-1] == "h47" and len(ticks) == 8
    assert by_label(ax)["h0"].get_xdata().tolist() == [0, 1]  # a ratio of 0 is frozen
