"""The class of what `as_optimizer` returns; importing this module imports Keras.

Keras's JAX trainer compiles ``stateless_apply``, which runs ``apply`` on values of the
optimizer's variables. So each array of the state is a variable here. The exception is
the learning rate: however many fields of the state hold it, it is the one variable that
Keras reads and sets.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.experimental.sparse import JAXSparse

from jopt import tree
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.keras.factories import KerasOptimizer, Remembered, snake_case
from jopt.interop.keras.pipeline import DEFAULTS, OptimizerFactory
from jopt.interop.keras.stepping import stepped
from jopt.state.hyperparams import RATE, changing_numbers_of
from jopt.tree.paths import difference
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.config import from_config, to_config
from jopt.values.numbers import Tunable
from jopt.wrappers.accumulation import Accumulation
from jopt.wrappers.loss_scale import scale_loss


# For type checkers, "keras" is the folder of this module.
keras: Any = importlib.import_module("keras")
KerasSchedule: Any = keras.optimizers.schedules.LearningRateSchedule


# Attributes of every Keras optimizer that only describe the transformation here.
DESCRIBING = {*DEFAULTS} - {"loss_scale_factor", "name", "exclude_from_weight_decay"}
SETTABLE = {"learning_rate", "loss_scale_factor", "name"}


class ScheduledRate(KerasSchedule):
    """The schedule of a transformation; Keras does not let such a rate be set."""

    def __init__(self, schedule: Callable[[Any], Any]):
        self.schedule = schedule

    def __call__(self, step: Any) -> jax.Array:
        """The rate of step ``step``."""
        return tree.scalar(self.schedule(step))


class NoSingleRate:
    """What stands in for the learning rate of a transformation without exactly one."""

    def __init__(self, rates: Mapping[str, Any]):
        self.rates = dict(rates)

    def __call__(self) -> Any:
        """Raise, because Keras asks for the learning rate."""
        has = "no learning rate"
        if self.rates:
            listed = (f"{place} = {x!r}" for place, x in sorted(self.rates.items()))
            has = f"several learning rates: {', '.join(listed)}"
        raise ValueError(
            f"this optimizer has {has}. Read what it has with "
            "jopt.hyperparams(optimizer.state), and change it with "
            "optimizer.set_state(jopt.set_hyperparams(optimizer.transformation, "
            "optimizer.state, …))"
        )


@dataclass(frozen=True)
class Built:
    """What `JoptOptimizer.build` makes; Keras does not look for variables in it."""

    learned: list[Any]  # the model's variables that gradients change
    names: list[str]  # their paths
    structure: Any  # of the state
    slots: dict[str, Any]  # the variable of each array of the state by its path; the
    # learning rate has None, because it is a variable of every optimizer of Keras

    def by_name(self, leaves: Sequence[Any]) -> Any:
        """The tree of parameters for the transformation."""
        # Not a dict, which JAX sorts: "dense_10" would come before "dense_9", and the
        # order of the variables, by which Keras saves them, would depend on names that
        # Keras numbers anew in each program.
        return collections.OrderedDict(zip(self.names, leaves, strict=True))


@keras.saving.register_keras_serializable("jopt")
class JoptOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer that makes the steps of a transformation.

    Args:
      transformation: The transformation.
      learning_rate: Another learning rate than the transformation's, for one that is
        not scheduled; None means the transformation's.
      loss_scale_factor: Factor that the loss is multiplied by, and the gradients are
        divided by; None means 1.
      name: The optimizer's name; None makes one up.
    """

    def __init__(
        self,
        transformation: GradientTransformation,
        learning_rate: Any = None,
        loss_scale_factor: float | None = None,
        name: str | None = None,
    ):
        if keras.backend.backend() != "jax":
            raise RuntimeError(
                "jopt's optimizers train Keras models on Keras's JAX backend, but the "
                f"backend is {keras.backend.backend()!r}: set the environment variable "
                "KERAS_BACKEND=jax before Keras is imported"
            )
        tx = as_transformation(transformation, "as_optimizer: tx")
        _check_needs(tx)
        rates = _rates(tx)
        own = _one_rate(rates)
        if learning_rate is None or not isinstance(own, float):
            learning_rate = own
        given = _arguments(tx)
        options = {n: x for n, x in given.items() if n in DESCRIBING}
        options["gradient_accumulation_steps"] = _gradients_per_step(tx)
        super().__init__(
            learning_rate=learning_rate,
            loss_scale_factor=loss_scale_factor,
            name=name or _name(tx),
            **options,
        )
        for argument, value in given.items():  # Keras has all of them as attributes
            if argument not in dir(self):
                setattr(self, argument, value)
        self.transformation = tx
        # Where the state has the learning rate of Keras's variable.
        self._rate_places = tuple(rates) if isinstance(own, float) else ()
        self._count_place = f"{next(iter(rates), '').removesuffix(RATE)}count"
        self._made: Built | None = None
        # The last, because from here on they cannot be set.
        self._describing = frozenset({*DESCRIBING, *given} - SETTABLE)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, but none that the steps would not follow."""
        if name in self.__dict__.get("_describing", ()):
            raise AttributeError(
                f"{name} describes the transformation, so setting it would not change "
                f"the steps: make an optimizer of a transformation with this {name}"
            )
        super().__setattr__(name, value)

    def exclude_from_weight_decay(
        self, var_list: Any = None, var_names: Any = None
    ) -> None:
        """Raise, because the transformation says which variables decay."""
        raise ValueError(
            "the transformation says which variables decay: give it the names, "
            "AdamW(…, exclude_from_weight_decay=['bias']), or if it is one of jopt's "
            "own a mask of paths, jopt.adamw(…, mask='kernel')"
        )

    # The variables.

    def build(self, variables: Sequence[Any]) -> None:
        """Make the variables of the state."""
        if self.built:
            return
        # Keras would make averages and sums of its own beside those of the state.
        own = {"use_ema": self.use_ema}
        own["gradient_accumulation_steps"] = self.gradient_accumulation_steps
        self.__dict__.update(use_ema=False, gradient_accumulation_steps=None)
        super().build(variables)
        self.__dict__.update(own)
        learned = [
            v for v in variables if not self._overwrite_variable_with_gradient(v)
        ]
        made = Built(learned, _names(learned), None, {})
        state = self.transformation.init(made.by_name([v.value for v in learned]))
        for place, x in tree.leaves_with_names(state):
            is_rate = place in self._rate_places
            made.slots[place] = None if is_rate else self._variable(place, x, made)
        self._made = replace(made, structure=jax.tree.structure(state))
        averages = self._averages()
        if len(averages) == len(variables):  # where Keras's SwapEMAWeights looks
            self._model_variables_moving_average = list(averages.values())
            self.__dict__.update(use_ema=True)
        if (
            self.gradient_accumulation_steps
        ):  # where Keras accumulates gradients that overwrite their variables
            names = {id(v): n for n, v in zip(made.names, learned, strict=True)}
            sums = self._by_parameter("AccumulateState", "acc_grads")
            self._accumulated_gradients = [
                sums.get(names[id(v)])
                if id(v) in names
                else self.add_variable_from_reference(v, name="gradient_accumulator")
                for v in variables
            ]

    def _variable(self, place: str, value: jax.Array, made: Built) -> Any:
        alike = [
            v
            for name, v in zip(made.names, made.learned, strict=True)
            if place.endswith(f"/{name}") and v.shape == value.shape
        ]
        return self.add_variable(
            shape=value.shape,
            initializer=lambda shape, dtype=None: value,
            dtype=str(value.dtype),
            layout=getattr(alike[0], "_layout", None) if alike else None,
            name=place.replace("/", "_"),
        )

    def _averages(self) -> dict[str, Any]:
        """The average of each parameter by path, if the state has one average."""
        return self._by_parameter("ParamsEmaState", "ema")

    def _by_parameter(self, name: str, field: str) -> dict[str, Any]:
        """A field's variables by path, if the state has one member of this name."""
        found = tree.get_all_with_path(self.state, name)
        if len(found) != 1:
            return {}
        prefix = tree.path_name((*found[0][0], jax.tree_util.GetAttrKey(field)))
        slots = self._parts.slots
        places = {name: f"{prefix}/{name}" for name in self._parts.names}
        return {n: slots[place] for n, place in places.items() if place in slots}

    @property
    def _parts(self) -> Built:
        if self._made is None:
            raise ValueError(
                "the optimizer has no state yet: fit the model, or call "
                "optimizer.build(model.trainable_variables)"
            )
        return self._made

    @property
    def params(self) -> Params:
        """The parameters by path, in the order of the variables."""
        return self._parts.by_name([v.value for v in self._parts.learned])

    @property
    def state(self) -> OptState:
        """The state of the transformation."""
        structure, slots = self._parts.structure, self._parts.slots
        rate: Any = None
        if self._rate_places:
            rate = tree.scalar(self.learning_rate)
        return structure.unflatten(
            [rate if v is None else v.value for v in slots.values()]
        )

    def set_state(self, state: OptState) -> None:
        """Replace the state of the transformation.

        Args:
          state: A state of the same structure, such as what `jopt.set_hyperparams`
            returns.

        Raises:
          ValueError: The structure is another, or two learning rates differ that were
            equal.
        """
        if jax.tree.structure(state) != self._parts.structure:
            where = difference("the state", state, "the optimizer's", self.state)
            raise ValueError(f"this is not a state of this optimizer; {where}")
        values = dict(tree.leaves_with_names(state))
        rates = [float(values[place]) for place in self._rate_places]
        if len(set(rates)) > 1:
            raise ValueError(f"the learning rates must stay equal, got {rates}")
        if rates and rates[0] != float(self.learning_rate):
            self.learning_rate = rates[0]
        self._assign_state(state)

    def _assign_state(self, state: OptState) -> None:
        values = jax.tree.leaves(state)
        for slot, value in zip(self._parts.slots.values(), values, strict=True):
            if slot is not None:
                self.assign(slot, value)

    # What Keras calls.

    def _backend_apply_gradients(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> None:
        made = self._parts
        # Keras's optimizers take the gradients of jax.experimental.sparse too.
        dense = [g.todense() if isinstance(g, JAXSparse) else g for g in grads]
        given = {id(v): g for g, v in zip(dense, trainable_variables, strict=True)}
        new, state = stepped(
            self.transformation,
            [given.get(id(v)) for v in made.learned],
            [v.value for v in made.learned],
            self.state,
            made.by_name,
        )
        for variable, value in zip(made.learned, new, strict=True):
            self.assign(variable, value)
        self._assign_state(state)

    @property
    def iterations(self) -> Any:
        """The number of steps; with `jopt.accumulate`, several gradients make one."""
        slots = self._made.slots if self._made else {}
        emissions = [x for x in slots if x.rpartition("/")[2] == "gradient_step"]
        return slots[emissions[0]] if len(emissions) == 1 else self._iterations

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next step."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(self._learning_rate, NoSingleRate):
            self._learning_rate()
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, ScheduledRate):
            slots = self._made.slots if self._made else {}
            count = slots.get(self._count_place, self._iterations)
            return self._learning_rate(count.value)
        return super()._get_current_learning_rate()

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the factor, or times the scale of `dynamic_loss_scale`."""
        if self._made and tree.get_all_with_path(self.state, "DynamicLossScaleState"):
            loss = scale_loss(self.state, loss)
        return super().scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Give the variables the values of the average, as Keras does after ``fit``."""
        if self._made:
            variables = dict(zip(self._made.names, self._made.learned, strict=True))
            for name, average in self._averages().items():
                self.assign(variables[name], average.value)

    # The config.

    def get_config(self) -> dict[str, Any]:
        """The arguments of the class as data."""
        config = {
            "name": self.name,
            "transformation": _written(self.transformation),
            "loss_scale_factor": self.loss_scale_factor,
        }
        if self._rate_places:
            config["learning_rate"] = super().get_config()["learning_rate"]
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Any = None
    ) -> JoptOptimizer:
        """The optimizer of a config."""
        config = dict(config)
        tx = from_config(config.pop("transformation"), custom_objects=custom_objects)
        if isinstance(rate := config.get("learning_rate"), Mapping):
            rate = keras.saving.deserialize_keras_object(rate, custom_objects)
            config["learning_rate"] = rate
        return cls(tx, **config)


def _rates(tx: GradientTransformation) -> dict[str, Any]:
    """The learning rates of a transformation by their places in its state."""
    return {
        f"{prefix}{RATE}": changing.sources[RATE]
        for prefix, changing in changing_numbers_of(tx)
        if RATE in changing.sources
    }


def _one_rate(rates: Mapping[str, Any]) -> Any:
    """The learning rate for Keras: a float, a schedule, or `NoSingleRate`."""
    values: list[Any] = list(rates.values())
    values = [x.initial if isinstance(x, Tunable) else x for x in values]
    if all(map(arguments.is_number, values)) and len(set(values)) == 1:
        return float(values[0])
    if values and all(callable(x) and x == values[0] for x in values):
        return ScheduledRate(values[0])
    return NoSingleRate(rates)


def _arguments(tx: GradientTransformation) -> dict[str, Any]:
    """The arguments of the Keras optimizer that a transformation stands for."""
    if isinstance(tx, KerasOptimizer) and isinstance(tx.spec.factory, OptimizerFactory):
        return tx.spec.arguments
    return {}


def _name(tx: GradientTransformation) -> str | None:
    """The name that Keras gives to an optimizer of this class: adam, then adam_1."""
    if not isinstance(tx, KerasOptimizer):
        return None
    name = snake_case(tx.spec.class_name)
    number = keras.backend.get_uid(name)
    return name if number == 1 else f"{name}_{number - 1}"


def _gradients_per_step(tx: GradientTransformation) -> int | None:
    """How many gradients make a step; None if that is one, or may change."""
    found = [x.recipe.arguments for x in _accumulations(tx) if x.recipe]
    if len(found) != 1 or "should_skip_update_fn" in found[0]:
        return None
    steps = found[0]["steps"]
    return None if callable(steps) or steps == 1 else steps


def _accumulations(tx: GradientTransformation) -> list[Accumulation]:
    inner = [x for child in tx.children.values() for x in _accumulations(child)]
    return [tx, *inner] if isinstance(tx, Accumulation) else inner


def _names(variables: Sequence[Any]) -> list[str]:
    """A distinct name for each variable: its path."""
    names: dict[str, None] = {}
    for variable in variables:
        path = getattr(variable, "path", variable.name)
        same = (path, *(f"{path}_{i}" for i in range(2, len(variables) + 2)))
        names[next(name for name in same if name not in names)] = None
    return list(names)


def _check_needs(tx: GradientTransformation) -> None:
    """Raise for what a transformation needs and Keras's optimizers do not get."""
    if missing := sorted(tx.needs.requires - {"params"}):
        raise ValueError(
            f"{tx.name} needs {', '.join(missing)}, which Keras does not pass to an "
            "optimizer. keras.callbacks.ReduceLROnPlateau takes the place of "
            "jopt.reduce_on_plateau"
        )
    for inner in tx.children.values():
        _check_needs(inner)


def _written(tx: GradientTransformation) -> dict[str, Any]:
    """A transformation as data for `from_config`."""
    if isinstance(tx, KerasOptimizer):
        # The call of Keras: it has the arguments, and a config where Keras's Muon and
        # MultiOptimizer choose leaves by functions, which have none.
        with contextlib.suppress(TypeError):
            config = _call(tx)
            if from_config(config) == tx:
                return config
    return to_config(tx)


def _call(value: Any) -> Any:
    """A value of `jopt.interop.keras` as data, with what Keras rounds or leaves out."""
    if isinstance(value, Remembered):
        spec = value.spec
        config = {name: _call(x) for name, x in spec.arguments.items()}
        names = {"module": spec.module, "registered_name": spec.registered_name}
        names = {name: x for name, x in names.items() if x is not None}
        return {**names, "class_name": spec.class_name, "config": config}
    if isinstance(value, Mapping):
        return {name: _call(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_call(x) for x in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{abbreviated(value)} cannot be written to a config")
