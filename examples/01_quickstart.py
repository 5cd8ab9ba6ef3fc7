"""Train a small network on handwritten digits, interrupt it anywhere, and resume.

    python examples/01_quickstart.py

The data are the 1,797 digits of 8 x 8 pixels that come with scikit-learn. One compiled
step clips the gradients and runs AdamW with a warmup-cosine learning rate. It donates
the old parameters and optimizer state (`donate_argnums`), so their memory is reused.
Each epoch ends with a checkpoint. Kill the script at any time: with `--resume` it ends
with the same bits as an uninterrupted run.

On two CPU cores it prints (30 epochs take 13 seconds):

    660/660 [00:12<00:00, 52.19step/s, loss 0.0004, accuracy 100.0%, rate 2.1e-08]
    test accuracy 98.61% (355 of 360) after 30 epochs, 13 s
    wrote out/checkpoint.msgpack and out/training.png
"""

import argparse
import functools
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("out"), help="where to write")
parser.add_argument(
    "--resume", action="store_true", help="continue from the checkpoint"
)
args = parser.parse_args()

# Data: 1,437 training images and 360 test images.

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
labels = labels.astype(np.int32)
train_images, test_images, train_labels, test_labels = train_test_split(
    images, labels, test_size=360, stratify=labels, random_state=0
)
steps_per_epoch = len(train_images) // args.batch_size
total_steps = args.epochs * steps_per_epoch


def batches(epoch):
    """Yield the batches of an epoch in an order that depends on seed and epoch only."""
    order = np.random.default_rng((args.seed, epoch)).permutation(len(train_images))
    order = order[: steps_per_epoch * args.batch_size]
    for chosen in order.reshape(-1, args.batch_size):
        yield train_images[chosen], train_labels[chosen]


# Model and optimizer.


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = x.reshape(len(x), -1)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x)


model = Network()
schedule = jopt.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=3e-3,
    warmup_steps=total_steps // 10,
    decay_steps=total_steps,
    end_value=0.0,
)
tx = jopt.chain(
    jopt.clip_by_global_norm(1.0),
    jopt.adamw(schedule, weight_decay=0.01, mask="kernel"),
)


def loss_fn(params, x, y, rng):
    logits = model.apply({"params": params}, x, train=True, rngs={"dropout": rng})
    loss = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])
    return loss, jnp.mean(logits.argmax(-1) == y)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, opt_state, rng, x, y):
    rng, dropout = jax.random.split(rng)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, accuracy), grads = grad_fn(params, x, y, dropout)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = jopt.apply_updates(params, updates)
    learning_rate = jopt.hyperparams(opt_state)["learning_rate"]
    return params, opt_state, rng, jnp.stack([loss, accuracy, learning_rate])


@jax.jit
def count_correct(params, x, y):
    return jnp.sum(model.apply({"params": params}, x).argmax(-1) == y)


# Everything that training changes; a checkpoint saves all of it.

init_rng, rng = jax.random.split(jax.random.PRNGKey(args.seed))
params = model.init(init_rng, train_images[:1])["params"]
opt_state = tx.init(params)
history = []  # (loss, accuracy, learning rate) of every step
first_epoch = 0
recipe = f"{args.seed=} {args.epochs=} {args.batch_size=} {tx}"
checkpoint = args.out / "checkpoint.msgpack"

if args.resume:
    if not checkpoint.exists():
        raise SystemExit(f"there is no {checkpoint} to resume from")
    params, opt_state, step, rng, metadata = jopt.checkpoint.restore(
        checkpoint, params=params, tx=tx
    )
    if metadata["recipe"] != recipe:
        raise SystemExit(f"{checkpoint} is of another run: {metadata['recipe']}")
    history, first_epoch = metadata["history"], step // steps_per_epoch
    print(f"resumed after epoch {first_epoch}", flush=True)

# Training.

start = time.perf_counter()
bar = tqdm(total=total_steps, initial=len(history), unit="step")
for epoch in range(first_epoch, args.epochs):
    for x, y in batches(epoch):
        params, opt_state, rng, metrics = train_step(params, opt_state, rng, x, y)
        history.append(metrics.tolist())
        loss, accuracy, rate = history[-1]
        bar.set_postfix_str(
            f"loss {loss:.4f}, accuracy {accuracy:.1%}, rate {rate:.1e}"
        )
        bar.update()
    jopt.checkpoint.save(
        checkpoint,
        params=params,
        opt_state=opt_state,
        tx=tx,
        step=len(history),
        rng=rng,
        metadata={"recipe": recipe, "history": history},
    )
bar.close()

correct = int(count_correct(params, test_images, test_labels))
print(
    f"test accuracy {correct / len(test_labels):.2%} ({correct} of {len(test_labels)}) "
    f"after {args.epochs} epochs, {time.perf_counter() - start:.0f} s"
)

# Plot.

figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 5))
losses, _, rates = zip(*history, strict=True)
above.semilogy(losses)
above.set_ylabel("loss")
below.plot(rates)
below.set(xlabel="step", ylabel="learning rate")
figure.tight_layout()
figure.savefig(args.out / "training.png", dpi=120)
print(f"wrote {checkpoint} and {args.out / 'training.png'}")
