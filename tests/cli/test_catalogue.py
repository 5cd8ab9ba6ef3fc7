"""``jopt list`` and ``jopt show``."""

import re

import pytest

import jopt
from tests.cli.run import data, run


def test_list_has_every_factory_with_a_line():
    found = data("list")
    assert [x["name"] for x in found] == [x for x in jopt.names() if x in dir(jopt)]
    assert len(found) > 200
    assert all(x["summary"] and "``" not in x["summary"] for x in found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("adamax", ["adamax", "adamaxw", "scale_by_adamax"]),
        ("'adamax*'", ["adamax", "adamaxw"]),
        ("adamax --kind transform", ["scale_by_adamax"]),
    ],
)
def test_list_takes_a_part_of_a_name_a_pattern_and_a_kind(arguments, expected):
    assert [x["name"] for x in data(f"list {arguments}")] == expected


def test_list_writes_a_line_for_each_of_them():
    head, *lines = run("list adamax").stdout.splitlines()
    assert head.split() == ["name", "kind", "summary"]
    assert len(lines) == 3 and all(line == line.rstrip() for line in lines)
    assert lines[1].startswith("adamaxw          optimizer  AdamaxW: ")


def test_a_name_that_nothing_has_is_status_1_and_a_suggestion():
    result = run("list adamwx", 1)
    assert result.stdout == ""
    assert (
        result.stderr == "jopt: there is nothing like 'adamwx'. Did you mean 'adamw'?\n"
    )
    assert data("list adamv", 1) == []


def test_show_has_what_is_known_of_an_optimizer():
    facts = data("show adamw")
    assert facts["paper"] == "Loshchilov & Hutter, 2019"
    assert facts["state_bytes"] == 8
    assert facts["required"] == ["learning_rate"]
    assert facts["defaults"]["b1"] == 0.9 and facts["defaults"]["mask"] is None
    libraries = {x["library"]: x for x in facts["same_numbers"]}
    assert libraries["torch"]["names"] == ["Adam", "AdamW"]
    text = run("show adamw").stdout
    assert text.startswith("adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-08,")
    for expected in (
        "    p <- p - learning_rate (m^ / (sqrt(v^) + eps) + weight_decay p)\n",
        "paper  Loshchilov & Hutter, 2019\n",
        "state  8 bytes a float32 parameter\n",
        "needs  params\n",
    ):
        assert expected in text
    assert re.search(r"^torch +\d+ .* Adam, AdamW$", text, re.M)


@pytest.mark.parametrize("name", ["linear_schedule", "clip", "accumulate", "rules"])
def test_show_has_a_schedule_a_transform_a_wrapper_and_a_mask(name):
    facts = data(f"show {name}")
    assert facts["summary"] and facts["state_bytes"] is None
    assert run(f"show {name}").stdout.startswith(f"{name}(")


def test_show_of_a_wrong_name_is_status_2_and_a_suggestion():
    result = run("show adamm", 2)
    assert result.stdout == ""
    message = "there is no factory 'adamm'. Did you mean 'adam'? 'jopt list' lists all"
    assert result.stderr == f"jopt: {message}\n"
