"""Optimizers as text: what a repr says is read again, and nothing is run."""

from __future__ import annotations

import json
from typing import Any

import pytest

import jopt
from tests.catalogue import CASES, Case


# A random key has no text.
WITH_TEXT = [case for case in CASES if "key=" not in case.id]


@pytest.mark.parametrize("case", WITH_TEXT, ids=lambda case: case.id)
def test_what_a_repr_says_is_read_again(case: Case) -> None:
    tx = case.make()
    assert jopt.from_config(repr(tx)) == tx


TX = jopt.chain(
    jopt.clip_by_global_norm(1.0),
    jopt.adamw(jopt.tunable(3e-4), weight_decay=0.1, mask=jopt.is_bias_or_norm),
)


@pytest.mark.parametrize(
    ("text", "tx"),
    [
        ("adamw(3e-4, weight_decay=0.1)", jopt.adamw(3e-4, weight_decay=0.1)),
        (" lion( learning_rate = 1e-4 ) ", jopt.lion(1e-4)),
        ("identity", jopt.identity()),
        (
            "sgd(warmup_cosine(peak_value=0.1, total_steps=100, warmup_steps=10))",
            jopt.sgd(
                jopt.warmup_cosine(peak_value=0.1, total_steps=100, warmup_steps=10)
            ),
        ),
        ("chain(scale(-1), scale(0.5))", jopt.chain(jopt.scale(-1), jopt.scale(0.5))),
        ("masked(scale(2.0), {'w': True})", jopt.masked(jopt.scale(2.0), {"w": True})),
        (repr(TX), TX),
        (json.dumps(jopt.to_config(TX)), TX),
        ("name: sgd\nconfig:\n  learning_rate: 3e-4", jopt.sgd(3e-4)),
        (
            "name: sgd\nconfig: {learning_rate: 1.0e-3, momentum: 0.9}",
            jopt.sgd(1e-3, 0.9),
        ),
        ("adamw: {learning_rate: 3e-4}", jopt.adamw(3e-4)),
        ('{"adamw": {"learning_rate": 3e-4}}', jopt.adamw(3e-4)),
        ("identity:", jopt.identity()),
        (
            "chain:\n- clip_by_global_norm: [1.0]\n- sgd:\n    learning_rate:\n"
            "      linear_schedule: [0.1, 0, 9]\n    momentum: 0.9",
            jopt.chain(
                jopt.clip_by_global_norm(1.0),
                jopt.sgd(jopt.linear_schedule(0.1, 0, 9), 0.9),
            ),
        ),
    ],
)
def test_a_text_gives_what_the_call_gives(text: str, tx: Any) -> None:
    assert jopt.from_config(text) == tx


def test_a_dict_of_keras_gives_keras_numbers() -> None:
    config = {"class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.9}}
    found = jopt.from_config(config)
    assert found == jopt.interop.keras.get(config)
    assert found == jopt.from_config(json.dumps(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adamm(1e-3)", "no factory 'adamm'. Did you mean 'adam'?"),
        ("adam(1e-3", "not a call such as"),
        ("adamm: {learning_rate: 0.1}", "no factory 'adamm'. Did you mean 'adam'?"),
        ("adam: {lr: 0.1}", "adam has no argument 'lr'"),
        ("adam: 0.1", "a config is .*in short {name"),
        ("shutil:rmtree: {}", "no factory 'shutil:rmtree'"),
        ("adam(lr=1e-3)", "adam has no argument 'lr'"),
        ("adam", "missing a required argument: 'learning_rate'"),
        ("chain(adam)", "'adam' in 'chain.adam.' is a factory: call it"),
        (
            "adam(1e-3).update",
            "is not a number, text, list, dict, or call of a factory",
        ),
        ("__import__('os').system('true')", "does not run code"),
        ("adam(open('x'))", "there is no factory 'open'"),
        ("adam(10**-3)", "does not run code"),
        ("adam(learning_rate=[x for x in ()])", "does not run code"),
        ("adam(**{'learning_rate': 0.1})", "does not run code"),
        ("(lambda: 1)()", "does not run code"),
        ("adam(eval)", "there is no factory 'eval'"),
        ("masked(scale(2.0), apply_updates)", "there is no factory 'apply_updates'"),
        ('{"name": "sgd"', "is not valid JSON"),
        ("name: [sgd", "is not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_wrong_text_is_an_error_that_says_what_is_wrong(
    text: str, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        jopt.from_config(text)
