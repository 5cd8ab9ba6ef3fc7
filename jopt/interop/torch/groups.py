"""Parameter groups: the first argument of torch's optimizers.

    torch.optim.SGD([{"params": biases, "lr": 0.02}, {"params": rest}], lr=0.1)
    SGD([{"params": "bias$", "lr": 0.02}, {"params": ""}], lr=0.1)

A group names its parameters by a mask instead of a list of tensors, because parameters
come with `init`.

torch's options for how to run a step, `HOW_TO_RUN`, change no number. They are accepted
where torch has them, and have no effect, because ``jax.jit`` compiles the step.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from jopt.core.factory import bind
from jopt.core.rules import rules
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.shared import number_of
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.wrappers.masking import partition


P = ParamSpec("P")
Groups = Sequence[Mapping[str, Any]] | None
HOW_TO_RUN = ("foreach", "fused", "capturable", "differentiable")
PER_GROUP = ("lr", "momentum")  # what torch's schedulers set
NOT_PER_GROUP = {"initial_accumulator_value"}


def optimizer(
    *how_to_run: str,
) -> Callable[
    [Callable[P, GradientTransformation]], Callable[P, GradientTransformation]
]:
    """Make an optimizer with torch's arguments accept parameter groups.

    Each group is a dict with ``params``, the mask of its leaves (see `jopt.Mask`; an
    expression such as ``"bias$"`` is searched for in their paths), and the arguments
    that differ in this group. A leaf belongs to the first group whose mask chooses it.
    Every leaf needs a group; ``""`` chooses all leaves. The state is that of
    `jopt.partition` with the labels ``group_0``, ``group_1``, …, or a ``name`` that the
    group gives: ``{"name": "head", …}`` has its rate in ``"head/learning_rate"``.

    ``lr`` and ``momentum`` may be lists with one value for each group, such as a
    scheduler returns for lists.

    Args:
      *how_to_run: Those of `HOW_TO_RUN` that torch's optimizer of this name has.

    Returns:
      A decorator of the function that makes the transformation of one group. The first
      argument of that function is ``params``.
    """
    return functools.partial(_with_groups, how_to_run=how_to_run)


def _with_groups(
    build: Callable[P, GradientTransformation], how_to_run: Sequence[str]
) -> Callable[P, GradientTransformation]:
    signature = inspect.signature(build, eval_str=True)

    def bound(args, kwargs):
        for name in how_to_run:
            if kwargs.get(name) is not None:
                arguments.flag(name, kwargs[name])
        args = [number_of(x) for x in args]
        kwargs = {n: number_of(x) for n, x in kwargs.items() if n not in how_to_run}
        return bind(build, signature, tuple(args), kwargs).arguments

    @functools.wraps(build)
    def make(*args, **kwargs):
        by_name = dict(zip(signature.parameters, args, strict=False)) | kwargs
        lists = {n: x for n, x in by_name.items() if n in PER_GROUP and _is_list(x)}
        if lists:
            args, kwargs = (), {n: x for n, x in by_name.items() if n not in lists}
            kwargs["params"] = _spread(build.__name__, kwargs.get("params"), lists)
        options = bound(args, kwargs)
        groups = options.pop("params")
        if groups is None:
            return build(**options)  # type: ignore[call-arg]
        _check(build.__name__, groups)
        transforms, pairs = {}, []
        for label, group in zip(_labels(groups), groups, strict=True):
            rest = {name: x for name, x in group.items() if name != "name"}
            if unused := NOT_PER_GROUP & rest.keys():
                (name,) = unused
                raise ValueError(
                    f"{name} is one for all groups, and torch ignores that of a group: "
                    f"give {build.__name__}(groups, {name}=…)"
                )
            # Bound again, to check and normalize the arguments of the group.
            group_options = bound((), {**options, **rest, "params": None})
            del group_options["params"]
            transforms[label] = build(**group_options)  # type: ignore[call-arg]
            pairs.append((group["params"], label))
        return partition(transforms, rules(*pairs))

    return make


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _spread(name: str, groups: Any, lists: Mapping[str, Any]) -> Groups:
    """Return the groups with their elements of the lists."""
    groups = [{"params": ""}] if groups is None else groups
    _check(name, groups)
    for argument, values in lists.items():
        if len(values) != len(groups):
            raise ValueError(
                f"{argument} must have one value for each of the {len(groups)} "
                f"parameter groups, got {len(values)}: {abbreviated(values)}"
            )
        for i, group in enumerate(groups):
            if argument in group:
                raise ValueError(
                    f"group {i} has its own {argument}={abbreviated(group[argument])}, "
                    f"and {argument} is also a list: give it once"
                )
    return [
        {**group, **{argument: values[i] for argument, values in lists.items()}}
        for i, group in enumerate(groups)
    ]


def _check(name: str, groups: Any) -> None:
    if not (_is_list(groups) and groups) or not all(
        isinstance(g, Mapping) for g in groups
    ):
        raise TypeError(
            f"the first argument of {name} must be a list of parameter groups, got "
            f"{abbreviated(groups)}. Parameters come with init(params): {name}(lr=…) "
            "optimizes all of them"
        )
    for i, group in enumerate(groups):
        if "params" not in group:
            raise ValueError(
                f"group {i} has no 'params', the mask of its leaves: "
                f"{abbreviated(group)}"
            )


def _labels(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    labels = [group.get("name", f"group_{i}") for i, group in enumerate(groups)]
    for i, label in enumerate(labels):
        if not isinstance(label, str) or not label or "/" in label:
            raise ValueError(
                f"the name of group {i} must be a word without '/', because it is a "
                f"part of paths, got name={abbreviated(label)}"
            )
        if label in labels[:i]:
            raise ValueError(
                f"the groups {labels.index(label)} and {i} have the same name, "
                f"{label!r}: give each its own"
            )
    return labels
