"""Names that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


# What Keras and torch call arguments that have another name here.
_NAMES_ELSEWHERE = {
    "alpha": "decay",
    "beta_1": "b1",
    "beta_2": "b2",
    "beta1": "b1",
    "beta2": "b2",
    "betas": "b1",
    "clipnorm": "max_norm",
    "dampening": "momentum",
    "epsilon": "eps",
    "global_clipnorm": "max_norm",
    "lr": "learning_rate",
    "rho": "decay",
    "weight_decay_rate": "weight_decay",
}


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A did-you-mean for an unknown word, or nothing."""
    known = list(known)
    by_lower_case = {name.lower(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=cutoff)
    if _NAMES_ELSEWHERE.get(word) in known:
        return f" Did you mean {_NAMES_ELSEWHERE[word]!r}?"
    return f" Did you mean {by_lower_case[close[0]]!r}?" if close else ""
