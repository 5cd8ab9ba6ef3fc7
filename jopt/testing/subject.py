"""What is tested: a transformation, schedule or wrapper, with what is known of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt.algorithms.sgd import sgd
from jopt.core.factory import Schedule
from jopt.core.transformation import GradientTransformation, Needs
from jopt.testing import problem
from jopt.tree import paths
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe, spread


SubjectKind = Literal["transformation", "schedule", "wrapper"]


class Subject:
    """A transformation, schedule or wrapper, with what the laws need to know of it.

    `check` and `report` make one of their arguments. Give one to
    `parametrize_with_laws` where an argument is needed there.

    Args:
      tx: A transformation; any pair ``(init, update)``, such as optax's; a schedule; or
        a wrapper, that is a function from a transformation to another one.
      params: The parameters to test a transformation with, a tree of arrays or of
        ``jax.ShapeDtypeStruct``. None tests it with a small dict of a matrix, a vector
        and a number, and with other trees.
      expected: A second implementation in NumPy, ``expected(p, grads, **arguments)``,
        for one leaf: a generator that takes an array and a list of gradients, with
        the arguments of the factory that differ from its defaults. It yields the
        parameter after each step of an optimizer, that is of anything whose updates
        point downhill; of another transformation, each update.
      whole_trees: Whether ``expected`` takes trees instead of arrays.
      without: Laws to leave out: a dict from the name of a law, a pattern such as
        ``"*nnx*"``, or a subject such as ``"devices"``, to the reason.

    Raises:
      TypeError: ``tx`` is not a transformation, a schedule or a wrapper.

    >>> import jopt
    >>> Subject(jopt.sgd(0.1)).is_optimizer, Subject(jopt.clip(1.0)).is_optimizer
    (True, False)
    """

    recipe: Recipe | None = None
    params: Any = None
    without: Mapping[str, str] = {}
    kind: SubjectKind = "transformation"
    # What may differ between transformations; None where it is not known.
    complex_leaves: bool | None = None  # whether it takes them
    integer_leaves: bool = False  # whether it takes them
    moves_without_gradient: bool | None = None  # by a decay, say
    rate_for_descent: float | None = None  # at which it goes down
    largest_float16: float = 1e4  # a gradient of which three can be added
    # Whether it must find every wrong tree, also where only gradients have shapes.
    is_strict: bool = False
    where: str = ""  # added to the groups of a report

    def __init__(
        self,
        tx: Any,
        params: Any = None,
        *,
        expected: Callable[..., Iterator[Any]] | None = None,
        whole_trees: bool = False,
        without: Mapping[str, str] | None = None,
    ):
        self.tx: Any = tx
        self.kind = _kind(tx)
        if self.kind == "transformation" and not isinstance(tx, GradientTransformation):
            self.tx = _pair(tx)
        self.recipe = getattr(tx, "recipe", None)
        self._given = params
        self.params = None if params is None else _drawn(params)
        self.without = dict(without or {})
        self._expected, self._whole_trees = expected, whole_trees

    @property
    def id(self) -> str:
        """What it is called in reports and in the names of tests."""
        if self.recipe is not None:
            return repr(self.recipe)
        if self.kind == "transformation":
            return getattr(self.tx, "name", "update")
        return getattr(self.tx, "__name__", type(self.tx).__name__)

    def __repr__(self) -> str:
        return self.id

    @property
    def is_foreign(self) -> bool:
        """Whether it is a pair of functions that jopt did not make."""
        return isinstance(self.tx, ForeignPair)

    @property
    def is_optimizer(self) -> bool:
        """Whether its updates point downhill: against the gradients, not along them."""
        if self.recipe is not None and "learning_rate" in self.recipe.parameters:
            return getattr(self.recipe.factory, "kind", "optimizer") == "optimizer"
        if not hasattr(self, "_is_optimizer"):
            self._is_optimizer = self._points_downhill()
        return self._is_optimizer

    def _points_downhill(self) -> bool:
        params, g = problem.small(like=self.params)
        try:
            along = 0.0
            state = self.tx.init(params)
            for _ in range(3):  # the first steps of a warmup may be zero
                u, state = problem.update(self.tx, g, state, params)
                pairs = zip(jax.tree.leaves(u), jax.tree.leaves(g), strict=True)
                along += sum(float(jnp.vdot(x, y).real) for x, y in pairs)
        except Exception:
            return False  # the laws say what is wrong
        return along < 0

    @property
    def needs_value(self) -> bool:
        """Whether an update needs the loss."""
        needs = getattr(self.tx, "needs", None)
        return needs is not None and "value" in needs.requires

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of its factory, with their defaults."""
        if self.recipe is None:
            return {}
        defaults = {n: p.default for n, p in self.recipe.parameters.items()}
        return defaults | self.recipe.arguments

    @property
    def numbers(self) -> dict[str, float]:
        """The arguments that are numbers and may be schedules, by name."""
        if self.recipe is None:
            return {}
        names = getattr(self.recipe.factory, "hyperparameters", ())
        given = {n: self.arguments.get(n) for n in names}
        return {n: x for n, x in given.items() if isinstance(x, float)}

    def make(self, **changes: Any) -> Any:
        """The transformation made again, with arguments of its factory changed."""
        if self.recipe is None:
            return self.tx
        given = self.recipe.arguments | changes
        args, kwargs = spread(self.recipe.parameters, given)
        return self.recipe.factory(*args, **kwargs)

    @property
    def traceable(self) -> dict[str, float]:
        """The arguments of a schedule that are numbers and may be traced."""
        if self.recipe is None:
            return {}
        function = inspect.unwrap(self.recipe.factory)
        parameters = inspect.signature(function, eval_str=True).parameters
        given = self.arguments
        return {
            name: given[name]
            for name, p in parameters.items()
            if p.annotation in (float, float | None) and type(given[name]) is float
        }

    def around(self, inner: GradientTransformation) -> Subject:
        """The transformation that this wrapper makes of another one."""
        one = Subject(self.tx(inner), self._given, without=self.without)
        one.where = f" (around {inner!r})"
        return one

    def draw(self, steps: int = problem.STEPS) -> tuple[Any, list[Any]]:
        """Parameters and gradients in float64."""
        return problem.draw(self.params, steps=steps)

    def small(self, dtype: Any = jnp.float32) -> tuple[Any, Any]:
        """Parameters and one gradient in a dtype."""
        return problem.small(dtype, self.params)

    def choose(self, params: Any) -> Any:
        """These parameters, unless it has to be tested with others."""
        if self.params is None:
            return params
        return problem.as_dtype(self.params, jnp.float32)

    @property
    def has_twin(self) -> bool:
        """Whether there is a second implementation."""
        return self._expected is not None

    def expected(self, params: Any, grads: list[Any]) -> Iterator[Any]:
        """The parameters after each step, or the updates of a transformation."""
        twin, options = self._expected, {}
        assert twin is not None
        if self.recipe is not None:
            options = dict(self.recipe.arguments)
        if self.needs_value:
            options["value"] = problem.loss
        if self._whole_trees:
            yield from twin(params, grads, **options)
            return
        leaves, treedef = jax.tree.flatten(params)
        per_leaf = zip(*map(jax.tree.leaves, grads), strict=True)
        runs = [
            twin(p, list(gs), **options) for p, gs in zip(leaves, per_leaf, strict=True)
        ]
        for _ in grads:
            yield jax.tree.unflatten(treedef, [next(run) for run in runs])

    def for_descent(self, steepness: float) -> list[Any]:
        """Transformations of which one has to go down, at several sizes of the steps.

        Args:
          steepness: The largest curvature of the function, relative to 1.
        """
        if self.rate_for_descent is not None:
            return [self.make(learning_rate=self.rate_for_descent / steepness)]
        return self.with_steps_of(1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)

    def with_steps_of(self, *sizes: float) -> list[Any]:
        """The transformation as it is, and with all updates multiplied by a factor.

        Args:
          *sizes: How large the first update becomes, for each factor.
        """
        if self.rate_for_descent is not None:
            return [self.make(learning_rate=self.rate_for_descent)]
        params, g = problem.small(like=self.params)
        state, largest = self.tx.init(params), 0.0
        for _ in range(3):  # the first steps of a warmup may be zero
            u, state = problem.update(self.tx, g, state, params)
            of_leaves = [float(jnp.max(abs(x))) for x in jax.tree.leaves(u) if x.size]
            largest = max([largest, *of_leaves])
        factors = [size / largest for size in sizes] if largest else []
        return [self.tx, *(_times(self.tx, factor) for factor in factors)]


def _times(tx: Any, factor: float) -> Any:
    def update(updates, state, params=None, **extra):
        updates, state = tx.update(updates, state, params, **extra)

        def times(u):
            wide = np.promote_types(u.dtype, np.float32)
            return (u.astype(wide) * jnp.asarray(factor, wide)).astype(u.dtype)

        return jax.tree.map(times, updates), state

    return ForeignPair(tx.init, update)


class ForeignPair(NamedTuple):
    """A pair of functions, of which the update takes, and ignores, any argument."""

    init: Callable[..., Any]
    update: Callable[..., Any]

    @property
    def name(self) -> str:
        """The function that the update is in."""
        return getattr(self.update, "__qualname__", "update").split(".")[0]


def as_subject(x: Any) -> Subject:
    """A subject as it is, anything else with nothing known of it."""
    return x if isinstance(x, Subject) else Subject(x)


def _functions(tx: Any) -> tuple[Any, Any] | None:
    """The two functions of a pair in optax's form, or None."""
    is_pair = isinstance(tx, tuple) and len(tx) == 2
    pair = tx if is_pair else (getattr(tx, "init", None), getattr(tx, "update", None))
    return (pair[0], pair[1]) if all(map(callable, pair)) else None


def _pair(tx: Any) -> ForeignPair:
    functions = _functions(tx)
    assert functions is not None
    init, inner = functions
    needs = Needs.of(inner)

    def update(updates, state, params=None, **extra):
        third = [params] if needs.third else []
        return inner(updates, state, *third, **needs.chosen(extra))

    update.__qualname__ = getattr(inner, "__qualname__", "update")
    return ForeignPair(init, update)


def _kind(tx: Any) -> SubjectKind:
    if isinstance(tx, GradientTransformation):
        return "transformation"
    if isinstance(tx, Schedule):
        return "schedule"
    made_by = getattr(tx, "kind", None)  # of a decorated factory
    if isinstance(tx, type) or (made_by is not None and made_by != "wrapper"):
        raise TypeError(
            f"{tx.__name__} is not called yet: give what it returns, as in "
            f"check({tx.__name__}(…))"
        )
    if _functions(tx) is not None:
        return "transformation"
    if not callable(tx):
        raise TypeError(
            "the laws are about a transformation, a pair (init, update), a schedule or "
            f"a wrapper (a function from a transformation to another), got "
            f"{abbreviated(tx)}"
        )
    try:
        inspect.signature(tx).bind(0)
    except TypeError as error:
        name = getattr(tx, "__name__", "wrapper")
        raise TypeError(
            "a schedule takes the number of a step, and a wrapper takes a "
            f"transformation, both nothing else: {error} in {abbreviated(tx)}. Give a "
            f"wrapper its other arguments: check(lambda inner: {name}(inner, …))"
        ) from None
    if made_by == "wrapper":
        return "wrapper"
    try:
        return "schedule" if _functions(tx(sgd(0.1))) is None else "wrapper"
    except Exception:
        return "schedule"  # it does not take a transformation


def _drawn(params: Any) -> Any:
    """The parameters in float64; random ones for shapes."""
    rng = np.random.default_rng(0)
    named = paths.leaves_with_names(params)
    if not named:
        raise ValueError("params has no arrays: the laws need at least one leaf")
    for name, leaf in named:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"params: leaf {name!r} is {abbreviated(leaf)}, and the laws need "
                "real parameters, because they give them other dtypes. Set other "
                "leaves to None"
            )

    def one(x):
        is_shape = isinstance(x, jax.ShapeDtypeStruct)
        value = rng.normal(size=x.shape) if is_shape else np.asarray(x)
        return np.asarray(value, np.float64)

    return jax.tree.map(one, params)
