"""A description as tables: for a terminal, with rich or without, and for a notebook."""

from __future__ import annotations

import html
import importlib.util
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any


WIDTH = 80  # where there is no terminal
MOST_ROWS = 200  # of leaves that are all different

FROZEN = "frozen"
TIMES = "\N{MULTIPLICATION SIGN}"
_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def for_terminal(description: Any) -> str:
    """The tables as text, as wide as the terminal; in colour if it is one."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    if importlib.util.find_spec("rich") is None:
        return as_text(description, width)
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=sys.stdout.isatty(),
        force_jupyter=False,  # else rich shows it there, and writes nothing
        highlight=False,
    )
    console.print(as_rich(description, width))
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


# Text.


def as_text(description: Any, width: int = WIDTH) -> str:
    """The tables in plain text."""
    lines = [*_wrapped(description.optimizer, width, ""), *_sizes(description), ""]
    for number, stage in enumerate(description.stages, start=1):
        lines += [x for x, _ in _stage(number, stage, width)]
    lines.append("")
    for columns, rows in _tables(description):
        lines += [*(x for x, _ in _aligned(columns, rows, width)), ""]
    return "\n".join(line.rstrip() for line in [*lines, *_notes(description)]).rstrip()


def _aligned(
    columns: list[str], rows: list[list[str]], width: int
) -> Iterator[tuple[str, str]]:
    """Columns side by side; the first one gives way if there is not enough room.

    Yields:
      Lines with their styles.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    gaps = 2 * (len(columns) - 1)
    widths[0] = max(min(widths[0], width - gaps - sum(widths[1:])), 12)
    for i, row in enumerate([columns, *rows]):
        cells = [_cut(row[0], widths[0]).ljust(widths[0])]
        cells += [
            x.rjust(w) if _is_right(c) else x.ljust(w)
            for x, w, c in zip(row[1:], widths[1:], columns[1:], strict=True)
        ]
        style = "dim" if FROZEN in row else "cell"
        yield "  ".join(cells), style if i else "head"
        if i == 0:
            yield "─" * (sum(widths) + gaps), "dim"


def _cut(text: str, width: int) -> str:
    """The text with its middle left out if it is too long."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[-end:]}"


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if len(indent) + len(line) > width:
            # Comments at the end of a formula are set off by spaces.
            line = re.sub(r"(?<=\S) {3,}", "   ", line)
        start = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(),
            width,
            initial_indent=indent + start,
            subsequent_indent=indent + start + "    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _stage(number: int, stage: Any, width: int) -> Iterator[tuple[str, str]]:
    """The lines of a stage with their styles."""
    indent = "  " * stage.depth
    head = f"{number:>2} {indent}"
    group = f" [{stage.group}]" if stage.group else ""
    numbers = [f"{name}={value}" for name, value in stage.hyperparameters.items()]
    title = f"{stage.name}{group}"
    kept = [f"({size(stage.state_bytes)} of state)"] if stage.state_bytes else []
    text = "  ".join([title, *kept, *filter(None, [", ".join(numbers)])])
    first, *rest = _wrapped(text, width - len(head), "")
    yield head + first, "head"
    for line in rest:
        yield " " * len(head) + line, "numbers"
    for line in _wrapped(stage.formula or stage.summary, width, " " * len(head) + "  "):
        yield line, "formula"


def size(nbytes: float) -> str:
    """Bytes as text.

    >>> size(12), size(4096), size(497_759_232)
    ('12 B', '4.1 kB', '497.8 MB')
    """
    if nbytes < 1000:
        return f"{nbytes} B"
    for unit in ("kB", "MB", "GB", "TB"):
        nbytes /= 1000
        if nbytes < 999.95 or unit == "TB":
            break
    return f"{nbytes:.1f} {unit}"


def _sizes(description: Any) -> list[str]:
    of = description.totals
    dtypes = "+".join(dict.fromkeys(leaf.dtype for leaf in description.leaves))
    times = of.state_bytes / of.param_bytes if of.param_bytes else 0
    ratio = f", {times:.3g} {TIMES} the parameters" if times else ""
    leaves = f"{of.leaves:,} {'leaf' if of.leaves == 1 else 'leaves'}"
    lines = [
        f"{leaves}, {of.parameters:,} parameters: "
        f"{size(of.param_bytes)} {dtypes}".rstrip(),
        f"state: {size(of.state_bytes)}{ratio}",
    ]
    if description.memory is not None:
        use = description.memory
        lines.append(
            f"each of {use.devices} devices: {size(use.params)} of parameters, "
            f"{size(use.state)} of state"
        )
    return lines


def array(dtype: str, shape: tuple[int, ...]) -> str:
    """An array as JAX writes it: ``f32[768,3072]``.

    >>> array("bfloat16", (8, 2)), array("float32", ())
    ('bf16[8,2]', 'f32[]')
    """
    return f"{_short(dtype)}[{','.join(map(str, shape))}]"


def _short(dtype: str) -> str:
    match = re.fullmatch(r"([a-z]+)(\d+)", dtype)
    return f"{_SHORT[match[1]]}{match[2]}" if match and match[1] in _SHORT else dtype


def _tables(description: Any) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The columns and rows of each table; columns that say nothing are left out."""
    rows = description.rows()[:MOST_ROWS]
    # A dtype that all have is said once, in the line about all of them.
    of_params = {x.dtype for x in description.leaves}
    unlike = any(set(_kept(x)) - {x.dtype} for x in description.leaves)
    cells = [_row(path, leaves, len(of_params) > 1, unlike) for path, leaves in rows]
    columns = ["leaf", "shape", "group", "rate", "decay", "axes", "state"]
    shown = [
        i
        for i, name in enumerate(columns)
        if name in ("leaf", "shape", "rate", "state") or any(row[i] for row in cells)
    ]
    yield [columns[i] for i in shown], [[row[i] for i in shown] for row in cells]
    if len(description.groups) > 1:
        yield (
            ["group", "leaves", "parameters", "bytes", "state"],
            [
                [
                    name or "-",
                    f"{of.leaves:,}",
                    f"{of.parameters:,}",
                    size(of.param_bytes),
                    size(of.state_bytes),
                ]
                for name, of in description.groups.items()
            ],
        )


def _is_right(column: str) -> bool:
    return column in ("leaves", "parameters", "bytes", "state")


def _row(path: str, leaves: list[Any], dtype: bool, state_dtype: bool) -> list[str]:
    leaf = leaves[0]
    times = f" {TIMES}{len(leaves)}" if len(leaves) > 1 else ""
    nbytes = sum(x.state_bytes for x in leaves)
    kept = f" {'+'.join(map(_short, _kept(leaf)))}" if state_dtype else ""
    return [
        (path or "(the array)") + times,
        array(leaf.dtype if dtype else "", leaf.shape),
        leaf.group,
        _rate(leaf),
        _decay(leaf),
        leaf.axes or "",
        f"{size(nbytes)}{kept}" if nbytes else "-",
    ]


def _kept(leaf: Any) -> dict[str, None]:
    """The dtypes of the arrays that the state keeps for a leaf."""
    return dict.fromkeys(x.partition("[")[0] for x in leaf.state.values())


def _rate(leaf: Any) -> str:
    if leaf.frozen:
        return FROZEN
    if leaf.untouched:
        return "gradient as is"
    rate, multiple = leaf.learning_rate, leaf.rate_multiple
    if rate is None:
        return "-" if multiple is None else f"{multiple:.4g}"
    text = "?" if rate.value is None else f"{rate.value:.4g}"
    if rate.kind == "scheduled":
        text = "varies"
    if multiple in (None, 1.0):
        return text
    return f"{text} {TIMES}{multiple:.4g}"


def _decay(leaf: Any) -> str:
    decay = leaf.weight_decay
    if decay is None or leaf.frozen:
        return ""
    text = "varies" if decay.kind == "scheduled" else "?"
    if decay.value is not None and decay.kind != "scheduled":
        text = f"{decay.value:.4g}"
    return f"{text} L2" if leaf.decay_enters else text


def _notes(description: Any) -> list[str]:
    notes = []
    hidden = description.rows()[MOST_ROWS:]
    if hidden:
        n = sum(len(leaves) for _, leaves in hidden)
        notes.append(f"… and {n:,} more leaves: all are in description.leaves")
    leaves = description.leaves
    if entered := next((x for x in leaves if x.decay_enters), None):
        notes.append(
            f"L2: the decay is added to the gradient, before {entered.decay_enters}"
        )
    if any(x.untouched and not x.frozen for x in leaves):
        notes.append(
            "gradient as is: no stage acts on these leaves, so their updates are the "
            "gradients themselves"
        )
    if any(x.axes for x in leaves):
        notes.append("axes of matrices: i inputs, o outputs, b a batch of them")
    return notes


# rich.

_STYLES = {"head": "bold", "formula": "cyan", "dim": "dim"}


def as_rich(description: Any, width: int | None = None) -> Any:
    """The tables as a renderable of rich: the same lines, in colour."""
    from rich.text import Text

    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    text = Text(no_wrap=True, overflow="ignore")

    def add(line, style=""):
        text.append(f"{line}\n", _STYLES.get(style, ""))

    for line in _wrapped(description.optimizer, width, ""):
        add(line)
    for line in [*_sizes(description), ""]:
        add(line, "head")
    for number, stage in enumerate(description.stages, start=1):
        for line, style in _stage(number, stage, width):
            if style == "head":
                name = re.match(r" *\d+ +\S+", line)
                end = name.end() if name else 0
                text.append(line[:end], "bold")
                line = line[end:]
                style = ""
            add(line, style)
    add("")
    for columns, rows in _tables(description):
        for line, style in _aligned(columns, rows, width):
            add(line, style)
        add("")
    for note in _notes(description):
        add(note, "dim")
    text.rstrip()
    return text


# HTML.

# The colours are the notebook's own, so that it looks right on light and on dark.
_CSS = """
.jopt-d {font-size: 13px; line-height: 1.45; max-width: 70rem}
.jopt-d code, .jopt-d pre {font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: 12px; background: none; color: inherit; padding: 0; margin: 0; border: 0}
.jopt-d pre {white-space: pre-wrap; opacity: .8}
.jopt-d table {border-collapse: collapse; margin: .8em 0; color: inherit;
  font-size: inherit}
.jopt-d th, .jopt-d td {text-align: left; vertical-align: baseline; border: 0;
  border-bottom: 1px solid rgba(128, 128, 128, .3); padding: .2em .9em .2em 0;
  background: none; color: inherit; white-space: nowrap}
.jopt-d td.w {white-space: normal}
.jopt-d th {font-weight: 600}
.jopt-d .r {text-align: right}
.jopt-d .dim {opacity: .6}
"""


def as_html(description: Any) -> str:
    """The tables as HTML, for notebooks."""
    rows = []
    for number, stage in enumerate(description.stages, start=1):
        numbers = ", ".join(f"{n}={x}" for n, x in stage.hyperparameters.items())
        formula = stage.formula or stage.summary
        group = f" <span class='dim'>{_e(stage.group)}</span>" if stage.group else ""
        rows.append(
            f"<tr><td class='r dim'>{number}</td>"
            f"<td style='padding-left: {1.2 * stage.depth}em'>"
            f"<b>{_e(stage.name)}</b>{group}</td>"
            f"<td class='w'>{_e(numbers)}<pre>{_e(formula)}</pre></td>"
            f"<td class='r'>{size(stage.state_bytes) if stage.state_bytes else ''}</td>"
            "</tr>"
        )
    head = "<tr><th></th><th>stage</th><th>numbers and rule</th>"
    head += "<th class='r'>state</th></tr>"
    parts = [
        f"<pre><b>{_e(description.optimizer)}</b></pre>"
        + "<br>".join(map(_e, _sizes(description))),
        f"<table>{head}{''.join(rows)}</table>",
    ]
    for columns, cells in _tables(description):
        parts.append(f"<table>{_html_row(columns, columns, 'th')}")
        parts += [_html_row(columns, row, "td") for row in cells]
        parts.append("</table>")
    parts += [f"<div class='dim'>{_e(note)}</div>" for note in _notes(description)]
    return f"<div class='jopt-d'><style>{_CSS}</style>{''.join(parts)}</div>"


def _html_row(columns: list[str], row: list[str], tag: str) -> str:
    dim = " class='dim'" if FROZEN in row else ""
    cells = []
    for i, (name, text) in enumerate(zip(columns, row, strict=True)):
        right = " class='r'" if _is_right(name) else ""
        content = f"<code>{_e(text)}</code>" if i == 0 and tag == "td" else _e(text)
        cells.append(f"<{tag}{right}>{content}</{tag}>")
    return f"<tr{dim}>{''.join(cells)}</tr>"


def _e(text: str) -> str:
    return html.escape(text)
