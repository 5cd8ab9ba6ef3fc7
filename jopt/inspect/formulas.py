"""What the docstring of a factory says: its update rule, its summary and its paper.

A docstring is the one place where an algorithm is written down for people. What shows
algorithms (`jopt.describe`, ``jopt show``, the tables of the docs) reads it here.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from jopt.core.chain import Chain
from jopt.values import registry


# An indented block after an empty line, and a rule inside a sentence: ``u <- 2 g``.
_BLOCK = re.compile(r"(?:^|\n\n)((?: {4}[^\n]*(?:\n|$))+)")
_INLINE = re.compile(r"``([^`]*<-[^`]*)``")
_TARGET = re.compile(r"([^\W\d]\w*)\S*\s*<-")
_SECTION = re.compile(r"^(Args|Returns|Raises):$|^>>> ", re.MULTILINE)
_SOURCE = re.compile(r'([A-Z][^.;:"`()<>=]*?),? "[^"]+", (?:\w+ )?(\d{4})')


def formula(name: str | Callable[..., Any]) -> str | None:
    """The update rule of a factory as text, one assignment a line.

    It is what the docstring has: a block that is indented, or a rule in a sentence,
    after the definitions that the docstring of its module begins with. An optimizer
    that has neither shows the rules of its members, in their order.

    Args:
      name: A registered name, or the factory.

    Returns:
      The lines, or None if no docstring has a rule. ``g`` is the gradient, ``p`` the
      parameter, ``u`` the update, and a hat (``m^``) a bias correction.

    Raises:
      ValueError: No factory has this name.

    >>> print(formula("sign_sgd"))
    p <- p - learning_rate sign(g)
    >>> print(formula("lion"))
    c <- b1 m + (1 - b1) g
    m <- b2 m + (1 - b2) g
    u <- sign(c)                  hard
    u <- tanh(smooth_beta c)      smooth
    u <- clip(c, -1, 1)           refined
    p <- p - learning_rate (sign(b1 m + (1 - b1) g) + weight_decay p)
    """
    factory = _factory(name)
    text = _text(factory)
    block = _block(text)
    if factory.kind == "schedule":
        return block
    own = _rules(block)
    if own and factory.kind == "transform":
        return own
    own = own or "\n".join(_INLINE.findall(text.split("\n\n")[0])) or None
    shared = _rules(_block(_module_text(factory)))
    if own is None or shared is None:
        return own or shared or _of_members(factory)
    # The step is the factory's own; what leads to it is often in its module.
    is_part = factory.kind == "transform"
    replaced = {"p"} if is_part else {"p", *_targets(own)} - {"u"}
    lines = [x for x in shared.splitlines() if not _targets(x) & replaced]
    lines = _leading_to(own, lines)
    if is_part and any("u" in _targets(x) for x in lines):
        return "\n".join(lines)
    return "\n".join([*lines, own])


def summary(name: str | Callable[..., Any]) -> str:
    """The first line of a factory's docstring.

    Args:
      name: A registered name, or the factory.

    Returns:
      The line; empty if there is no docstring.

    Raises:
      ValueError: No factory has this name.

    >>> summary("adan")
    'Adan: adaptive Nesterov momentum.'
    """
    return next(iter(_text(_factory(name)).splitlines()), "")


def paper(name: str | Callable[..., Any]) -> str | None:
    """Authors and year of the paper that a docstring has last: Authors, "Title", year.

    Args:
      name: A registered name, or the factory.

    Returns:
      The text, or None if neither the docstring nor that of its module has a paper.

    Raises:
      ValueError: No factory has this name.

    >>> paper("lion")
    'Chen et al., 2023'
    """
    factory = _factory(name)
    for doc in (factory.__doc__, _module_text(factory)):
        doc = " ".join((doc or "").split(">>>")[0].replace("et al.", "et al").split())
        if found := _SOURCE.findall(doc):
            authors, year = found[-1]
            return f"{authors.replace('et al', 'et al.')}, {year}"
    return None


def kind(name: str | Callable[..., Any]) -> registry.Kind | None:
    """What a factory makes: an optimizer, a schedule, a transform or a wrapper.

    Args:
      name: A registered name, or the factory.

    Returns:
      The kind, or None for a factory of something else, such as rules.

    Raises:
      ValueError: No factory has this name.

    >>> kind("accumulate")
    'wrapper'
    """
    return _factory(name).kind


def defaults(name: str | Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a factory that have a default.

    Args:
      name: A registered name, or the factory.

    Returns:
      The defaults by argument, in the order of the signature.

    Raises:
      ValueError: No factory has this name.

    >>> defaults("scale_by_learning_rate")
    {'flip_sign': True}
    """
    parameters = inspect.signature(_factory(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _factory(name: str | Callable[..., Any]) -> Any:
    if not isinstance(name, str):
        return name
    factory = registry.factory(name)
    if factory is None:
        raise registry.unknown(name)
    return factory


def _text(factory: Any) -> str:
    """The docstring before its sections and examples."""
    return _SECTION.split(inspect.getdoc(factory) or "")[0]


def _module_text(factory: Any) -> str:
    return inspect.getdoc(sys.modules[factory.__module__]) or ""


def _block(text: str) -> str | None:
    found = _BLOCK.search(text)
    return found and inspect.cleandoc("\n" + found[1])


def _rules(block: str | None) -> str | None:
    """The block, unless it is another kind of text, such as a table or a call."""
    return block if block and "<-" in block else None


def _targets(text: str) -> set[str]:
    """What a rule assigns, without indices: ``m`` of ``m_t <- g``."""
    return {name.partition("_")[0] for name in _TARGET.findall(text)}


def _leading_to(rule: str, lines: list[str]) -> list[str]:
    """Those lines that define what the rule, or a line that is kept, mentions."""
    mentioned, kept = {"u", *_words(rule)}, set()
    for _ in lines:
        for i, line in enumerate(lines):
            if not _targets(line) or _targets(line) & mentioned:
                kept.add(i)
                mentioned |= _words(line)
    return [lines[i] for i in sorted(kept)]


def _words(text: str) -> set[str]:
    return {word.partition("_")[0] for word in re.findall(r"[^\W\d]\w*", text)}


def _of_members(factory: Any) -> str | None:
    """The rules of the chain that an optimizer is, if its call says what they are."""
    parameters = inspect.signature(factory).parameters.values()
    required = {p.name for p in parameters if p.default is p.empty}
    if factory.kind != "optimizer" or required - {"learning_rate"}:
        return None
    tx = factory(**dict.fromkeys(required, 1.0))
    members = tx.children.values() if isinstance(tx, Chain) else ()
    rules = [formula(m.recipe.factory) for m in members if m.recipe is not None]
    return "\n".join(filter(None, rules)) or None
