"""``jopt race``."""

import pytest

import jopt
from tests.cli.run import data, run


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("race dijits", "digits"),
        ("race digits --optimizers 'sgd, adamm'", "Did you mean 'adam'"),
        ("race digits --optimizers 'sgd('", "is not a list of calls"),
    ],
)
def test_a_wrong_argument_is_status_2_and_a_message(command, message):
    result = run(command, 2)
    assert result.stdout == "" and message in result.stderr, result.stderr


class Result:
    def __str__(self):
        return "the table"

    def to_dict(self):
        return {"task": "digits"}

    def markdown(self):
        return "| the | table |"

    def plot(self, path):
        path.write_bytes(b"\x89PNG")


def test_race_takes_the_arguments_of_the_function(monkeypatch, tmp_path):
    calls = []

    def race(task, optimizers, **options):
        calls.append((task.name, optimizers, options))
        return Result()

    monkeypatch.setattr(jopt.inspect, "race", race)
    monkeypatch.setattr(
        jopt.inspect, "race_task", lambda name: type("Task", (), {"name": name})
    )
    assert run("race digits").stdout == "the table\n"
    given = "--optimizers 'sgd(0.1, momentum=0.9), adamw' --optimizers lion"
    assert data(f"race digits {given} --seeds 5 --out {tmp_path}/races") == {
        "task": "digits"
    }
    optimizers = ["sgd(0.1, momentum=0.9)", "adamw", "lion"]
    assert calls == [("digits", None, {}), ("digits", optimizers, {"seeds": 5})]
    page = (tmp_path / "races" / "digits.md").read_text()
    assert "jopt race digits --optimizers 'sgd(0.1, momentum=0.9), adamw, lion'" in page
    assert " --seeds 5 --out .\n" in page and "| the | table |" in page
    assert (tmp_path / "races" / "digits.png").exists()
