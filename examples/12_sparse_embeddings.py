"""Learn word vectors; a step touches only the rows of the words that it looks up.

    python examples/12_sparse_embeddings.py

Skip-gram with negative sampling (Mikolov et al., 2013) on the topics of Python's help.
`sparse_value_and_grad` gives the loss the looked-up rows in place of the tables, and
returns their gradients as `RowSparse` leaves. Clipping and Adam work on these rows
alone, of the parameters and of the moments. A dense gradient gives a dense step.

    63,665 words of text, 3,360 different ones
    the first step changed 583 rows of the contexts
    class: owner, virtual, instance, inheritance, body
    string: literal, copy, chars, characters, defaulting
    import: bar, imported, regular, foo, identifier
    integer: __float__, imaginary, lexicographical, retrieves, float
"""

import argparse
import functools
import re
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1500, help="default: %(default)s")
args = parser.parse_args()

# Words of the text as numbers, and pairs of words at most four words apart.

text = re.findall(r"[a-z_]+", " ".join(topics.values()).lower())
words, tokens = np.unique(text, return_inverse=True)
distances = np.array([-4, -3, -2, -1, 1, 2, 3, 4])


def batch(step):
    """Return words, one that is near each of them, and five that are not."""
    random = np.random.default_rng(step)
    near = random.integers(4, len(tokens) - 4, 256)
    others = random.integers(len(tokens), size=(256, 5))
    return tokens[near], tokens[near + random.choice(distances, 256)], tokens[others]


def lookups(word, near, others):
    """Say which rows of which tables a batch looks up."""
    return {"words": word, "contexts": {"near": near, "others": others}}


def loss_fn(params, word, near, others):
    """Get the rows in place of the tables."""
    rows, contexts = params["words"], params["contexts"]
    near = jnp.einsum("bd,bd->b", rows, contexts["near"])
    others = jnp.einsum("bd,bnd->bn", rows, contexts["others"])
    return jax.nn.softplus(-near).mean() + jax.nn.softplus(others).sum(1).mean()


value_and_grad = jopt.sparse_value_and_grad(loss_fn, lookups)
tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adam(3e-3))
params = {
    "words": jax.random.normal(jax.random.key(0), (len(words), 64)) / 8,
    "contexts": jnp.zeros((len(words), 64)),
}
opt_state = tx.init(params)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, opt_state, *batch):
    loss, grads = value_and_grad(params, *batch)
    updates, opt_state = tx.update(grads, opt_state, params)
    return jopt.apply_updates(params, updates), opt_state, loss


print(f"{len(tokens):,} words of text, {len(words):,} different ones")
for step in tqdm(range(args.steps), unit="step"):
    params, opt_state, loss = train_step(params, opt_state, *batch(step))
    if step == 0:
        changed = jnp.any(params["contexts"] != 0, axis=1).sum()
        print(f"the first step changed {changed} rows of the contexts")

vectors = params["words"] / jnp.linalg.norm(params["words"], axis=1, keepdims=True)
for word in "class", "string", "import", "integer":
    (i,) = np.flatnonzero(words == word)
    nearest = np.argsort(-vectors @ vectors[i])[1:6]
    print(f"{word}: {', '.join(words[nearest])}")
