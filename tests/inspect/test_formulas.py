"""What docstrings say of algorithms: rules, papers, kinds."""

import pytest

import jopt
from jopt.inspect import formulas
from tests.tools.table import optimizers


RULES = [*optimizers(), *jopt.names("scale_by_*")]


@pytest.mark.parametrize("name", RULES)
def test_every_optimizer_and_every_scale_by_has_a_rule(name: str) -> None:
    rule = formulas.formula(name)
    assert rule is not None and "<-" in rule
    assert not any(line != line.rstrip() or "``" in line for line in rule.split("\n"))


def test_the_rule_of_an_optimizer_ends_with_its_own_step() -> None:
    for name in ("adam", "adamw", "lion", "sgd", "muon", "laprop"):
        last = (formulas.formula(name) or "").splitlines()[-1]
        assert last.startswith("p <- p - learning_rate "), name


def test_a_rule_has_the_definitions_that_it_needs_and_no_others() -> None:
    assert "m^ = m / (1 - b1^t)" in (formulas.formula("adamw") or "")
    # Its module has the momentum of signum, which sign_sgd has not.
    assert formulas.formula("sign_sgd") == "p <- p - learning_rate sign(g)"
    # Its module is about ADOPT.
    assert formulas.formula("skip_first") == "u <- g if t > steps, else 0"


def test_an_optimizer_without_a_rule_shows_those_of_its_members() -> None:
    @jopt.transformation
    def step_by_clipped_gradients(
        learning_rate: jopt.ScalarOrSchedule,
    ) -> jopt.GradientTransformation:
        """Gradient descent with clipping."""
        return jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(learning_rate))

    clip, rate = "u <- g min(1, max_norm / |G|)", "u <- -learning_rate * g"
    assert formulas.formula(step_by_clipped_gradients) == f"{clip}\n{rate}"


def test_a_table_in_a_docstring_is_no_rule() -> None:
    assert formulas.formula("monitor") is None
    assert (formulas.formula("accumulate") or "").startswith("acc <- acc + w g")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="Did you mean 'adamw'"):
        formulas.formula("admw")


def test_defaults_are_those_of_the_signature() -> None:
    assert formulas.defaults("adam")["b1"] == 0.9
    assert "learning_rate" not in formulas.defaults("adam")
    assert formulas.kind("adam") == "optimizer"
    assert formulas.summary("adan") == "Adan: adaptive Nesterov momentum."
