"""Parameter groups: the first argument of torch's optimizers.

    torch.optim.SGD([{"params": biases, "lr": 0.02}, {"params": rest}], lr=0.1)
    SGD([{"params": "bias$", "lr": 0.02}, {"params": ""}], lr=0.1)

What torch has as a list of tensors is here a mask, as parameters come with `init`.
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
    """Decorates an optimizer with torch's arguments: it takes parameter groups too.

    Each group is a dict with ``params``, the mask of its leaves (see `jopt.Mask`;
    an expression such as ``"bias$"`` is searched for in their paths), and the arguments
    that are its own. A leaf is in the first group that chooses it, and has to be in
    one: ``""`` chooses all that are left. The state is that of a `jopt.partition` with
    the labels ``group_0``, ``group_1``, …

    Args:
      build: Makes one group's transformation; its first argument is ``params``.
    """
    signature = inspect.signature(build, eval_str=True)

    def bound(args, kwargs):
        for name in HOW_TO_RUN:
            if name in kwargs:
                raise TypeError(
                    f"{name} says how torch runs a step; here jax.jit compiles it: "
                    f"leave {name} out"
                )
        return bind(build, signature, tuple(args), dict(kwargs)).arguments

    @functools.wraps(build)
    def make(*args, **kwargs):
        given = bound(args, kwargs)
        groups = given.pop("params")
        if groups is None:
            return build(**given)  # type: ignore[call-arg]
        _check(build.__name__, groups)
        transforms, pairs = {}, []
        for i, group in enumerate(groups):
            own = {name: x for name, x in group.items() if name != "params"}
            own = bound((), {**given, **own})
            del own["params"]
            transforms[f"group_{i}"] = build(**own)  # type: ignore[call-arg]
            pairs.append((group["params"], f"group_{i}"))
        return partition(transforms, rules(*pairs))

    return make


def _check(name: str, groups: Any) -> None:
    is_list = isinstance(groups, list | tuple) and groups
    if not is_list or not all(isinstance(g, Mapping) for g in groups):
        raise TypeError(
            f"the first argument of {name} is a list of parameter groups, as in torch, "
            f"got {abbreviated(groups)}. Parameters come with init(params): "
            f"{name}(lr=…) is for all of them"
        )
    for i, group in enumerate(groups):
        if "params" not in group:
            raise ValueError(
                f"group {i} has no 'params', which says what leaves it is for: "
                f"{abbreviated(group)}"
            )
