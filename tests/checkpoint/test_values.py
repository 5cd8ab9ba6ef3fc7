"""Arrays without a value cannot be saved; the error says why."""

import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt.checkpoint import save
from tests.core.test_foreign_arrays import Tensor


TX = jopt.sgd(0.1, momentum=0.9)
PARAMS = {"w": jnp.ones(3)}


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_saving_inside_jit_is_an_error(tmp_path, name):
    @jax.jit
    def train(params):
        save(tmp_path / name, params=params, opt_state=TX.init(params), tx=TX)

    with pytest.raises(
        TypeError, match="params/w has no value: save was called inside"
    ):
        train(PARAMS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_saving_what_was_donated_is_an_error(tmp_path, name):
    params = {"w": jnp.ones(3)}
    state = TX.init(params)
    jax.jit(lambda state: jax.tree.map(jnp.copy, state), donate_argnums=0)(state)
    with pytest.raises(ValueError, match=r"^opt_state/.* has been deleted, for ex"):
        save(tmp_path / name, params=params, opt_state=state, tx=TX)
    assert not list(tmp_path.iterdir())


def test_saving_tensors_of_torch_is_an_error(tmp_path):
    with pytest.raises(
        TypeError, match=r"^params leaf 'w' .* of torch; pass jnp.asarray"
    ):
        save(tmp_path / "run", params={"w": Tensor((3,))}, opt_state=())
