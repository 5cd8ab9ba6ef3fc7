"""Parameter groups: the first argument of torch's optimizers.

    torch.optim.SGD([{"params": biases, "lr": 0.02}, {"params": rest}], lr=0.1)
    SGD([{"params": "bias$", "lr": 0.02}, {"params": ""}], lr=0.1)

A group names its parameters by a mask instead of a list of tensors, because parameters
come with `init`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from jopt.core.factory import bind
from jopt.core.rules import rules
from jopt.core.transformation import GradientTransformation
from jopt.values.arguments import abbreviated
from jopt.wrappers.masking import partition


P = ParamSpec("P")
Groups = Sequence[Mapping[str, Any]] | None
HOW_TO_RUN = ("foreach", "fused", "capturable", "differentiable")


def optimizer(
    build: Callable[P, GradientTransformation],
) -> Callable[P, GradientTransformation]:
    """Make an optimizer with torch's arguments accept parameter groups.

    Each group is a dict with ``params``, the mask of its leaves (see `jopt.Mask`; an
    expression such as ``"bias$"`` is searched for in their paths), and the arguments
    that differ in this group. A leaf belongs to the first group whose mask chooses it.
    Every leaf needs a group; ``""`` chooses all leaves. The state is that of
    `jopt.partition` with the labels ``group_0``, ``group_1``, …, or a ``name`` that the
    group gives: ``{"name": "head", …}`` has its rate in ``"head/learning_rate"``.

    Args:
      build: Makes the transformation of one group; its first argument is ``params``.
    """
    signature = inspect.signature(build, eval_str=True)

    def bound(args, kwargs):
        for name in HOW_TO_RUN:
            if name in kwargs:
                raise TypeError(
                    f"{name} controls how torch runs a step. Here jax.jit compiles "
                    f"the step: leave {name} out"
                )
        return bind(build, signature, tuple(args), dict(kwargs)).arguments

    @functools.wraps(build)
    def make(*args, **kwargs):
        options = bound(args, kwargs)
        groups = options.pop("params")
        if groups is None:
            return build(**options)  # type: ignore[call-arg]
        _check(build.__name__, groups)
        transforms, pairs = {}, []
        for label, group in zip(_labels(groups), groups, strict=True):
            rest = {name: x for name, x in group.items() if name != "name"}
            # Bound again, to check and normalize the arguments of the group.
            group_options = bound((), {**options, **rest, "params": None})
            del group_options["params"]
            transforms[label] = build(**group_options)  # type: ignore[call-arg]
            pairs.append((group["params"], label))
        return partition(transforms, rules(*pairs))

    return make


def _check(name: str, groups: Any) -> None:
    is_list = isinstance(groups, list | tuple) and groups
    if not is_list or not all(isinstance(g, Mapping) for g in groups):
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
