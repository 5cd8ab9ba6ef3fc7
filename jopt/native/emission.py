"""The C source of an elementwise jaxpr: one loop that touches every array once.

The loop computes what XLA:CPU computes, mostly to the bit: sums of products are
contracted as LLVM contracts them, and a division by a scalar is a product with its
reciprocal. Functions such as ``pow`` come from the C library, as in XLA. XLA has its
own ``exp``, ``log`` and ``tanh``, which work on vectors and are several times faster
than the library's, so a rule that needs one of them stays with XLA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


class Unsupported(Exception):
    """A loop in C cannot do what the jaxpr does, or not exactly."""


@dataclass(frozen=True, eq=False)
class Value:
    """A number of the loop."""

    text: str  # in C
    dtype: np.dtype[Any]
    varies: bool  # from element to element; other numbers are computed before the loop


@dataclass(frozen=True, eq=False)
class Statement:
    """A result, and the expression of C for it."""

    result: Value
    form: str
    operands: tuple[Value, ...]

    def __str__(self) -> str:
        texts = [x.text for x in self.operands]
        kind = self.operands[0].dtype.name
        expression = self.form.format(*texts, kind=kind, f=_suffix(kind))
        return (
            f"const {TYPES[self.result.dtype.name]} {self.result.text} = {expression};"
        )


TYPES = {"bool": "int", "float32": "float", "float64": "double"} | {
    f"{sign}int{bits}": f"{sign}int{bits}_t"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
ARRAYS = ("float32", "float64")
MUL = "{0} * {1}"
FMA = "fma_{kind}({0}, {1}, {2})"
# By primitive: a form for floats and one for integers. None: not supported.
FORMS: dict[str, tuple[str | None, str | None]] = {
    "add": ("{0} + {1}", "{0} + {1}"),
    "add_any": ("{0} + {1}", "{0} + {1}"),
    "sub": ("{0} - {1}", "{0} - {1}"),
    "mul": (MUL, MUL),
    "neg": ("-{0}", "-{0}"),
    "div": ("{0} / {1}", None),  # 1 / 0 has a value in XLA, and is a trap in C
    "max": ("max_{kind}({0}, {1})", "{0} > {1} ? {0} : {1}"),
    "min": ("min_{kind}({0}, {1})", "{0} < {1} ? {0} : {1}"),
    "sign": ("sign_{kind}({0})", None),
    "abs": ("fabs{f}({0})", None),
    "sqrt": ("sqrt{f}({0})", None),
    "rsqrt": ("1 / sqrt{f}({0})", None),
    "is_finite": ("fabs{f}({0}) < INFINITY", None),
    "and": (None, "{0} & {1}"),
    "or": (None, "{0} | {1}"),
    "xor": (None, "{0} ^ {1}"),
    "eq": ("{0} == {1}", "{0} == {1}"),
    "ne": ("{0} != {1}", "{0} != {1}"),
    "gt": ("{0} > {1}", "{0} > {1}"),
    "ge": ("{0} >= {1}", "{0} >= {1}"),
    "lt": ("{0} < {1}", "{0} < {1}"),
    "le": ("{0} <= {1}", "{0} <= {1}"),
    "ceil": ("ceil{f}({0})", None),
    "floor": ("floor{f}({0})", None),
    "cbrt": ("cbrt{f}({0})", None),
    "pow": ("pow{f}({0}, {1})", None),
    "atan2": ("atan2{f}({0}, {1})", None),
}
# These keep the order of the elements, if they keep their number.
SAME_ELEMENTS = {"broadcast_in_dim", "copy", "copy_p", "expand_dims", "reshape"}
SAME_ELEMENTS |= {"optimization_barrier", "squeeze", "stop_gradient"}

PRELUDE = """\
#include <math.h>
#include <stdint.h>

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

// XLA contracts sums of products where the processor does it in one instruction.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define fma_float32 fmaf
#define fma_float64 fma
#else
#define fma_float32(a, b, c) ((a) * (b) + (c))
#define fma_float64(a, b, c) ((a) * (b) + (c))
#endif

// The larger one is NaN if one is, and 0 of 0 and -0; the sign of NaN is NaN. XLA takes
// subnormal numbers for 0, and so do these in threads that flush them. A choice by a
// number that does not vary is one of bits: GCC would not vectorize some that branch.
#define FUNCTIONS(T, name, f, I) \\
  static inline T choose_##name(I all, T a, T b) { \\
    union { \\
      T number; \\
      I bits; \\
    } x = {a}, y = {b}; \\
    x.bits = (x.bits & all) | (y.bits & ~all); \\
    return x.number; \\
  } \\
  static inline T max_##name(T a, T b) { \\
    T m = (a > b) | ((a == b) & (copysign##f(1, b) < 0)) ? a : b; \\
    return a != a ? a : m; \\
  } \\
  static inline T min_##name(T a, T b) { \\
    T m = (a < b) | ((a == b) & (copysign##f(1, a) < 0)) ? a : b; \\
    return a != a ? a : m; \\
  } \\
  static inline T sign_##name(T a) { \\
    return (a == 0) | (a != a) ? 0 * a : copysign##f(1, a); \\
  }
FUNCTIONS(float, float32, f, int32_t)
FUNCTIONS(double, float64, , int64_t)
"""


def c_source(closed: ClosedJaxpr) -> str:
    """A function ``kernel(in, out, begin, end)`` for some of the elements.

    Args:
      closed: A jaxpr of arrays of one size, float32 or float64, and scalars. The
        results are arrays of that size.

    Returns:
      The source. It depends on neither shape nor size.

    Raises:
      Unsupported: The jaxpr is not elementwise, or has dtypes or functions for which
        there is no form in C.
    """
    outputs = [v.aval for v in closed.jaxpr.outvars]
    sizes = [getattr(x, "size", 0) for x in outputs]
    if not all(isinstance(n, int) for n in sizes):
        raise Unsupported("shapes that are not known")
    size = max(sizes, default=0)
    if size <= 1:
        raise Unsupported("no arrays, or arrays of one element")
    for x in outputs:
        if x.size != size or x.dtype.name not in ARRAYS:
            raise Unsupported(f"the result {x.str_short()}")
    tracing = _Tracing(size)
    inputs = {v: f"x{i}" for i, v in enumerate(closed.jaxpr.invars)}
    values = {v: tracing.input(v.aval, name) for v, name in inputs.items()}
    results = tracing.run(closed.jaxpr, closed.consts, values)
    statements = _contracted(_needed(tracing.statements, results), results)

    needed = {x for s in statements for x in s.operands} | set(results)
    before, loop = [], []
    for i, x in enumerate(values.values()):
        if x not in needed or isinstance(x, Unsupported):
            continue
        kind = TYPES[x.dtype.name]
        if x.varies:
            before.append(f"const {kind} *in{i} = in[{i}];")
            loop.append(f"const {kind} {x.text} = in{i}[i];")
        elif x.dtype.kind == "b":
            before.append(f"const int {x.text} = *(const uint8_t *)in[{i}] != 0;")
        else:
            before.append(f"const {kind} {x.text} = *(const {kind} *)in[{i}];")
    for s in statements:
        (loop if s.result.varies else before).append(str(s))
    for i, x in enumerate(results):
        before.append(f"{TYPES[x.dtype.name]} *out{i} = out[{i}];")
        loop.append(f"out{i}[i] = {x.text};")
    lines = [
        PRELUDE,
        "void kernel(void *const *in, void *const *out, int64_t begin, int64_t end) {",
        *(f"  {line}" for line in before),
        "  INDEPENDENT",
        "  for (int64_t i = begin; i < end; i++) {",
        *(f"    {line}" for line in loop),
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines)


class _Tracing:
    """The statements of a jaxpr and of those that it calls, in their order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.statements: list[Statement] = []
        self.known: dict[Any, Value] = {}

    def input(self, aval: Any, name: str) -> Value | Unsupported:
        """An input, or why it must not be used."""
        size, dtype = getattr(aval, "size", None), getattr(aval, "dtype", None)
        if getattr(dtype, "name", None) not in (TYPES if size == 1 else ARRAYS):
            return Unsupported(f"the argument {aval.str_short()}")
        if size not in (1, self.size):
            return Unsupported(f"arrays of {size} and of {self.size} elements")
        return Value(name, np.dtype(dtype), size != 1)

    def run(
        self, jaxpr: Jaxpr, consts: Sequence[Any], values: dict[Any, Any]
    ) -> list[Value]:
        """Add the statements of a jaxpr, and return its results."""
        values = values | {
            v: constant(x, _dtype(v))
            for v, x in zip(jaxpr.constvars, consts, strict=True)
        }

        def read(v):
            if isinstance(v, Literal):
                return constant(v.val, _dtype(v))
            if isinstance(values[v], Unsupported):
                raise values[v]
            return values[v]

        for eqn in jaxpr.eqns:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            operands = [read(v) for v in eqn.invars]
            if eqn.primitive.name in CALLS and inner is not None:
                body, inner_consts = inner, ()
                if isinstance(inner, ClosedJaxpr):
                    body, inner_consts = inner.jaxpr, inner.consts
                arguments = dict(zip(body.invars, operands, strict=True))
                results = self.run(body, inner_consts, arguments)
            else:
                results = self.equation(eqn, operands)
            values |= dict(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """The results of one equation."""
        name = eqn.primitive.name
        for v in eqn.outvars:
            if _dtype(v).name not in TYPES:
                raise Unsupported(f"{name} to {_dtype(v).name}")
        if name in SAME_ELEMENTS:
            for x, v in zip(operands, eqn.outvars, strict=True):
                if x.varies and v.aval.size != self.size:
                    raise Unsupported(f"{name} to other sizes")
            return operands
        return [self.number(name, _dtype(eqn.outvars[0]), operands, eqn.params)]

    def number(
        self,
        name: str,
        dtype: np.dtype[Any],
        operands: list[Value],
        params: dict[str, Any],
    ) -> Value:
        """The result of an equation that computes with numbers."""

        def of(form, *operands):
            # What is computed twice is one number, for XLA too.
            key = form, dtype, *(x.text for x in operands)
            if key not in self.known:
                varies = any(x.varies for x in operands)
                result = Value(f"y{len(self.statements)}", dtype, varies)
                self.statements.append(Statement(result, form, operands))
                self.known[key] = result
            return self.known[key]

        x, *others = operands
        kind = x.dtype.kind
        if name == "convert_element_type":
            if x.dtype == dtype:
                return x
            if dtype.kind == "b":
                return of("{0} != 0", x)
            if kind == "f" and dtype.kind != "f":
                raise Unsupported("integers from floating-point numbers")
            return of("{0}", x)
        if name == "select_n" and kind == "b" and len(others) == 2:
            if others[0].dtype.kind == "f" and not x.varies:
                return of(
                    f"choose_{others[0].dtype.name}(-{{0}}, {{2}}, {{1}})", x, *others
                )
            return of("{0} ? {2} : {1}", x, *others)
        if name == "clamp" and kind == "f":
            low, y, high = operands
            (larger, _), (smaller, _) = FORMS["max"], FORMS["min"]
            return of(smaller, of(larger, low, y), high)
        if name == "square":
            return of(MUL, x, x)
        if name == "integer_pow" and kind == "f":
            return _power(of, x, params["y"])
        if name == "not":
            return of("!{0}" if kind == "b" else "~{0}", x)
        if name == "div" and kind == "f" and x.varies and not others[0].varies:
            reciprocal = of("1 / {0}", others[0])
            return of(MUL, x, reciprocal)
        form = FORMS.get(name, (None, None))[kind != "f"]
        if form is None or any(y.dtype != x.dtype for y in others):
            raise Unsupported(f"{name} of {', '.join(y.dtype.name for y in operands)}")
        return of(form, *operands)


# Equations that call a jaxpr.
CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"}
CALLS |= {"custom_jvp_call", "custom_vjp_call"}


def _power(of: Any, x: Value, exponent: int) -> Value:
    """A whole power, by the products that JAX takes for it."""
    result, n = None, abs(exponent)
    while n:
        if n & 1:
            result = x if result is None else of(MUL, result, x)
        n >>= 1
        if n:
            x = of(MUL, x, x)
    if result is None:
        return constant(1, x.dtype)
    return result if exponent > 0 else of("1 / {0}", result)


def _dtype(v: Any) -> np.dtype[Any]:
    return v.aval.dtype


def constant(x: Any, dtype: np.dtype[Any]) -> Value:
    """A constant scalar; the text has its exact bits."""
    name = dtype.name
    if np.size(x) != 1 or name not in TYPES:
        raise Unsupported(f"a constant array of shape {np.shape(x)}, or of {name}")
    number = np.asarray(x).astype(dtype).item()
    if not isinstance(number, float):
        text = f"(({TYPES[name]}){int(number)}{'U' if name[0] == 'u' else ''}LL)"
        if number == np.iinfo(np.int64).min:
            text = "INT64_MIN"  # -9223372036854775808LL is too large before the minus
    elif np.isfinite(number):
        text = f"({number.hex()}{_suffix(name)})"
    else:
        text = "((float)NAN)" if np.isnan(number) else f"({'-' * (number < 0)}INFINITY)"
    return Value(text, dtype, False)


def _suffix(name: str) -> str:
    """What the C names of functions and constants of this type end in."""
    return "f" if name == "float32" else ""


def _needed(statements: list[Statement], results: list[Value]) -> list[Statement]:
    """The statements on which results depend."""
    needed, kept = set(results), []
    for s in reversed(statements):
        if s.result in needed:
            needed |= set(s.operands)
            kept.append(s)
    return kept[::-1]


def _contracted(statements: list[Statement], results: list[Value]) -> list[Statement]:
    """Fused multiply-adds, where XLA:CPU has them.

    XLA makes a loop for each result, which computes again what the others compute. In
    it, LLVM adds a product in one instruction if this is its only use and it is not
    computed before the loop; of two products, the first one.
    """
    made = {s.result: s for s in statements}
    loops = [_loop(result, made, set(results) - {result}) for result in results]

    def contracted(s):
        for i, x in enumerate(s.operands):
            product = made.get(x)
            if product is None or product.form != MUL or x.dtype.kind != "f":
                continue
            if x.varies != s.result.varies:
                continue
            if x in results or any(uses[x] > 1 for uses in loops if s.result in uses):
                continue
            if s.form == FORMS["add"][0]:
                form = FMA
            elif s.form == FORMS["sub"][0]:
                form = FMA.replace(*(("{2}", "-{2}") if i == 0 else ("{0}", "-{0}")))
            else:
                continue
            return Statement(s.result, form, (*product.operands, s.operands[1 - i]))
        return s

    return _needed([contracted(s) for s in statements], results)


def _loop(
    result: Value, made: dict[Value, Statement], others: set[Value]
) -> Counter[Value]:
    """How often each number is used for a result; other results are read."""
    uses, todo, seen = Counter([result]), [result], set[Value]()
    while todo:
        x = todo.pop()
        if x in made and x not in seen and x not in others:
            seen.add(x)
            todo += made[x].operands
            uses.update(made[x].operands)
    return uses
