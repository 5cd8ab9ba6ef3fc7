"""The examples of Keras's documents, and of a chapter on optimizers, without Keras."""

import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.docs.test_examples import ENVIRONMENT, PAGES, ROOT


BOSTON = ROOT / "examples" / "boston_housing.py"
EXAMPLES = ROOT / "examples" / "keras"
# Those that take longer than five seconds at their own settings show a bar.
SLOW = {
    BOSTON,
    EXAMPLES / "custom_training_loop.py",
    EXAMPLES / "name_dict_object.py",
    EXAMPLES / "three_learning_rates.py",
}
# Many small programs: most of the time is for compiling them.
QUICK = {**ENVIRONMENT, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(*command: Any) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=QUICK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("%|" in done.stderr) == bool(SLOW & set(command)), done.stderr
    return done.stdout


def printed(pattern: str, output: str) -> list[float]:
    """The numbers that a line of the output has where the pattern has groups."""
    found = re.search(pattern, output)
    assert found, output
    return [float(x) for x in found.groups()]


NUMBER = r"([-\d.e+]+)"


def test_no_example_imports_keras_or_tensorflow() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 8
    for script in [*scripts, BOSTON]:
        imports = r"^(?:import|from) (?:tf_)?(?:keras|tensorflow)\b"
        assert not re.search(imports, script.read_text(), re.M), script


def test_an_optimizer_is_chosen_by_name_by_dict_and_as_an_object() -> None:
    output = run(EXAMPLES / "name_dict_object.py", "--epochs", 3)
    rows = re.findall(r"^by (\w+): .*?([\d.]+)  test accuracy ([\d.]+)%", output, re.M)
    assert [row[:2] for row in rows] == [
        ("name", "0.001"),
        ("dict", "0.0001"),
        ("object", "0.0001"),
        ("name", "0.001"),
        ("object", "0.01"),
    ]
    accuracies = [float(row[2]) for row in rows]
    assert accuracies[1] == accuracies[2] < accuracies[0]  # three epochs: too slow
    assert min(accuracies[3:]) > 80
    assert "optimizers: 5, compilations of the training step: 4" in output
    pattern = r"^(\w+) +keras\.[\w.]+\.(\w+)\n +(\w+)\("
    table = {name: rest for name, *rest in re.findall(pattern, output, re.M)}
    assert len(table) == 15
    assert table["experimentalsgd"] == ["SGD", "sgd"]
    assert table["ftrl"] == ["Ftrl", "ftrl"]
    assert table["lossscaleoptimizer"] == ["LossScaleOptimizerV3", "dynamic_loss_scale"]
    assert not re.search(r"\d\.\d{8}", output)  # such as 0.0010000000474974513


def test_a_training_loop_of_ones_own_clips_as_by_hand() -> None:
    output = run(EXAMPLES / "custom_training_loop.py", "--epochs", 3)
    losses = [float(x) for x in re.findall(r"epoch \d: loss ([\d.]+)", output)]
    assert losses[0] > losses[1] > losses[2] > 0
    assert printed(f"weights equal to {NUMBER}", output)[0] < 1e-6


def test_a_list_of_gradients_is_applied_to_a_list_of_variables() -> None:
    *lines, type_error, value_error = run(EXAMPLES / "apply_gradients.py").splitlines()
    assert lines[1:] == [
        "the same as update and apply_updates: True",
        "warning: Gradients do not exist for variables ['1']: they are not updated",
        "bias moved: False, its moments moved: False",
    ]
    assert type_error.startswith("TypeError: grads_and_vars must be pairs")
    assert value_error.startswith("ValueError: No gradients provided for any variable")

    # Keras's Adam in float64: eps is added before the bias correction.
    x = np.random.default_rng(0).normal(size=(64, 3))
    one = np.append(x, np.ones((64, 1)), 1)
    y = x @ [1.0, -2.0, 0.5] + 0.7
    w, m, v = np.zeros(4), np.zeros(4), np.zeros(4)
    for t in range(1, 101):
        g = 2 / 64 * one.T @ (one @ w - y)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 0.05 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - rate * m / (np.sqrt(v) + 1e-7)
    expected = np.array([100, np.mean(y**2), np.mean((one @ w - y) ** 2)])
    found = printed(rf"iterations {NUMBER}, loss {NUMBER} -> {NUMBER}", lines[0])
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_gradients_of_replicas_add_up_by_hand_and_in_a_chain() -> None:
    output = run(EXAMPLES / "aggregate_gradients.py")
    distances = re.findall(f"weights equal to {NUMBER}", output)
    assert len(distances) == 2 and max(map(float, distances)) < 1e-6

    # The whole batch in float64, with Keras's momentum.
    x = np.random.default_rng(0).normal(size=(64, 3))
    one = np.append(x, np.ones((64, 1)), 1)
    y = x @ [1.0, -2.0, 0.5] + 0.1
    w, m = np.zeros(4), np.zeros(4)
    for _ in range(10):
        m = 0.5 * m - 0.1 * 2 / 64 * one.T @ (one @ w - y)
        w = w + m
    expected = np.array([np.mean(y**2), np.mean((one @ w - y) ** 2)])
    found = printed(rf"steps: 10, loss {NUMBER} -> {NUMBER}", output)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_learning_rate_follows_keras_schedules(tmp_path: Any) -> None:
    output = run(EXAMPLES / "schedules.py", "--out", tmp_path)
    t = np.array([0, 5_000, 10_000, 20_000])
    expected = {
        "ExponentialDecay": 0.01 * 0.9 ** (t / 10_000),
        "PiecewiseConstantDecay": np.array([0.01, 0.01, 0.01, 0.005]),
        "PolynomialDecay": 0.0099 * (1 - np.minimum(t, 10_000) / 10_000) + 1e-4,
        "InverseTimeDecay": 0.01 / (1 + 0.5 * t / 10_000),
    }
    for name, values in expected.items():
        found = printed(rf"{name}\s+{'[ ]+'.join([NUMBER] * 4)}\n", output)
        np.testing.assert_allclose(found, values, atol=5.1e-6)
    loss, rate = printed(rf"-> {NUMBER}, rate of the last step {NUMBER}", output)
    assert loss < 1e-9
    assert rate == pytest.approx(0.01 * 0.9**0.9999, rel=1e-5)
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")


def test_the_weights_of_rmsprop_are_got_and_set_as_in_keras() -> None:
    assert run(EXAMPLES / "get_and_set_weights.py").splitlines() == [
        "3 weights: () int64, (20, 10) float32, (10,) float32",
        "iterations: 1",
        "set: iterations 10, mean square of kernel 1.0, of bias 0.0",
        "set, then got: the same numbers",
        "a list of 2: ValueError",
    ]


def test_a_lower_learning_rate_is_not_a_better_one(tmp_path: Any) -> None:
    small = "--epochs", 5, "--seeds", 1, "--out", tmp_path
    output = run(EXAMPLES / "three_learning_rates.py", *small)
    found = re.findall(r"([\d.]+)% \([\d.]+% to [\d.]+%\) in test", output)
    high, middle, low = map(float, found)
    assert high > middle > low
    assert high > 90
    picture = tmp_path / "three_learning_rates.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_four_methods_of_keras_and_two_of_ours_give_the_same_adam() -> None:
    output = run(EXAMPLES / "custom_optimizer.py")
    dense = printed(f"dense, 50 steps: the largest difference is {NUMBER}", output)
    sparse = printed(f"sparse, 50 steps: {NUMBER}; .* moved by {NUMBER}", output)
    assert dense[0] < 1e-12 and sparse[0] < 1e-12 and sparse[1] == 0
    config = json.loads(re.findall("config: (.*)", output)[0])
    assert config["config"]["learning_rate"]["config"]["decay_rate"] == 0.9


# The chapter, at small settings; and its optimizers in NumPy, from its formulas, beside
# what the script trains with.

DRIVER = """
import json, runpy, sys
sys.argv = sys.argv[1:]
script = runpy.run_path(sys.argv[0])
jax, np = script["jax"], script["np"]
key = jax.random.key(1)
found = {"params": script["init"](jax.random.split(key)[0])}
for name in ("clipped", "momentum", "clipped_adam"):
    def record(carry, keys):
        return script["train"](script[name], None, carry, keys)
    carry, keys = script["begin"](script[name], (25, 1), key, 0.05)
    _, records = jax.lax.scan(record, carry, keys)
    found[name] = np.stack([records["train"], records["test"]], 1)
found["data"] = [script[n] for n in ("x_train", "y_train", "x_test", "y_test")]
print(json.dumps(jax.tree.map(lambda a: np.asarray(a).tolist(), found)))
"""


@pytest.fixture(scope="module")
def boston(tmp_path_factory: Any) -> Any:
    """The folder, the words and the numbers of a run of the chapter."""
    out = tmp_path_factory.mktemp("boston")
    arguments = ["--seeds", 2, "--epochs", 100, "--out", out]
    output = run("-c", DRIVER, BOSTON, *arguments)
    *words, numbers = output.splitlines()
    return out, "\n".join(words), json.loads(numbers)


LOSSES = r" +([\d.]+)" * 7
COUNTS = r" +(\d+)" * 3
# The lowest test losses that the chapter printed, to two digits.
CHAPTER = [83.24, 97.06, 444.85, 71.76, 85.04, 616.28, 216.57]
CHAPTER += [49.35, 30.62, 29.12, 28.04, 29.34]


def rows(words: str) -> Any:
    """The chapter's loss, six quartiles and three counts of each run."""
    found = re.findall(rf"^ *\S.*?{LOSSES}{COUNTS}$", words, re.M)
    return np.array(found, float)


def claims(words: str) -> str:
    """The summary of a run, on one line."""
    return " ".join(words[words.index("In short, ") :].split("\n\n")[0].split())


def test_the_chapter_prints_its_table_and_findings_and_draws_its_pictures(
    boston: Any,
) -> None:
    out, words, _ = boston
    table = rows(words)
    assert list(table[:, 0]) == CHAPTER
    assert len(re.findall(r"^ +[012] of 2: ", words, re.M)) == 13
    assert "at 1e-3, the network collapses to its last bias" in words
    for name in ("sweep", "clipnorm", "mini_batches", "momentum", "adam"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name


def test_the_chapters_summary_has_the_counts_of_its_table(boston: Any) -> None:
    _, words, _ = boston
    lower, _, dead = rows(words)[:, -3:].T
    pattern = r"(\d) networks end dead without clipping, (\d) with it"
    assert printed(pattern, claims(words)) == [dead[0], dead[7]]
    assert printed(r"(\d) of its networks end dead", claims(words)) == [dead[9]]
    reached = printed(r"is reached with (\d), (\d), (\d), (\d), (\d)", claims(words))
    assert reached == list(lower[7:])


def test_the_page_claims_what_the_chapter_printed(boston: Any) -> None:
    record = BOSTON.with_suffix(".txt").read_text()
    page = PAGES["from_keras"].replace("\n> ", " ")
    assert claims(record) in page

    def words_of(text):
        text = text[: text.index("Wrote five pictures")]
        return re.sub(r"[-.\d]*\d[-.,%e\d]*", "#", " ".join(text.split()))

    assert words_of(record) == words_of(boston[1])  # else record it again


def test_the_chapters_dead_network_is_a_bias_that_learns_alone(boston: Any) -> None:
    _, words, numbers = boston
    _, y_train, _, y_test = map(np.array, numbers["data"])
    lines = re.findall(r"^  (1e-0\d) +([\d.]+) +([\d.]+)$", words, re.M)
    assert len(lines) == 7
    for line, theirs in zip(lines, CHAPTER, strict=False):
        rate, loss, chapter = map(float, line)
        bias = 0.0
        for _ in range(100):
            bias -= rate * 2 * np.mean(bias - y_train)
        assert loss == pytest.approx(np.mean((y_test - bias) ** 2), abs=0.006)
        assert chapter == theirs
    assert re.search(r"in the chapter +22\.3946$", words, re.M)
    assert re.search(rf"mean of the training set +{y_train.mean():.4f}$", words, re.M)


def test_the_chapter_has_the_data_of_keras(boston: Any) -> None:
    _, words, numbers = boston
    x_train, y_train, x_test, y_test = map(np.array, numbers["data"])
    assert (x_train.shape, x_test.shape) == ((404, 13), (102, 13))
    # The first rows of keras.datasets.boston_housing.load_data().
    first = [1.23247, 0, 8.14, 0, 0.538, 6.142, 91.7, 3.9769, 4, 307, 21, 396.9, 18.72]
    np.testing.assert_allclose(x_train[0], first, rtol=1e-6)
    np.testing.assert_allclose(y_train[:1, 0], [15.2], rtol=1e-6)
    np.testing.assert_allclose(y_test[:4, 0], [7.2, 18.8, 19.0, 27.0], rtol=1e-6)
    constant = np.mean((y_test - y_train.mean()) ** 2)
    assert f"of a constant, the mean of the training set: {constant:.2f}\n" in words


class Chapter:
    """The network and the chapter's three optimizers in float64."""

    def __init__(self, params: Any, data: Any):
        layers = params["hidden"], params["last"]
        self.params = [np.array(p[n]) for p in layers for n in ("kernel", "bias")]
        self.x, self.y, self.x_test, self.y_test = map(np.array, data)
        self.m = [np.zeros_like(p) for p in self.params]
        self.v = [np.zeros_like(p) for p in self.params]
        self.t = 0

    def residual(self, x: Any, y: Any) -> tuple[Any, Any]:
        kernel, bias, last_kernel, last_bias = self.params
        hidden = np.maximum(x @ kernel + bias, 0)
        return hidden, hidden @ last_kernel + last_bias - y

    def gradients(self) -> list[Any]:
        hidden, r = self.residual(self.x, self.y)
        out = 2 * r / len(r)
        inner = out @ self.params[2].T * (hidden > 0)
        grads = [self.x.T @ inner, inner.sum(0), hidden.T @ out, out.sum(0)]
        norms = [np.sqrt(np.sum(g**2)) for g in grads]
        return [2 * g / n if n > 2 else g for g, n in zip(grads, norms, strict=True)]

    def update(self, i: int, g: Any, name: str, lr: float) -> Any:
        if name == "clipped":
            return -lr * g
        if name == "momentum":
            self.m[i] = 0.98 * self.m[i] - lr * g
            return self.m[i]
        self.m[i] = 0.9 * self.m[i] + 0.1 * g
        self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
        lr = lr * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        return -lr * self.m[i] / (np.sqrt(self.v[i]) + 1e-8)

    def run(self, name: str, lr: float, epochs: int) -> Any:
        losses = []
        for self.t in range(1, epochs + 1):
            before = np.mean(self.residual(self.x, self.y)[1] ** 2)
            for i, g in enumerate(self.gradients()):
                self.params[i] = self.params[i] + self.update(i, g, name, lr)
            after = np.mean(self.residual(self.x_test, self.y_test)[1] ** 2)
            losses.append([before, after])
        return np.array(losses)


@pytest.mark.parametrize("name", ["clipped", "momentum", "clipped_adam"])
def test_the_chapters_optimizers_are_those_of_its_formulas(
    boston: Any, name: str
) -> None:
    _, _, numbers = boston
    expected = Chapter(numbers["params"], numbers["data"]).run(name, 0.05, 25)
    assert expected[-1, 0] < 0.5 * expected[0, 0]
    np.testing.assert_allclose(numbers[name], expected, rtol=2e-3)
