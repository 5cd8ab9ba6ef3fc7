"""The site: `sphinx-build -W --keep-going -n docs docs/_build/html`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent))

import generate
from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

import jopt
from jopt.checkpoint import Restored
from jopt.values.docs import shown_signature


project = "jopt"
release = jopt.__version__
html_title = f"jopt {release}"
copyright = "the authors of jopt"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
extensions += ["myst_nb"]
mathjax_path = "mathjax/tex-svg.js"  # MathJax 3.2.2 of npm, so that no page needs a CDN
html_theme = "furo"
exclude_patterns = ["_build", "generated/api.rst", "generated/examples.md"]
default_role = "py:obj"
# Only the quickstart is executed here: the tests run the code of all other pages.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_dark_style = "github-dark"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
autodoc_typehints = "signature"
maximum_signature_line_length = 70
python_use_unqualified_type_names = True
nitpick_ignore_regex = [("py:class", ".*")]


# Markup.


def literal_formulas(app, what, name, obj, options, lines):
    """Formulas of our docstrings are indented paragraphs: say so in markup."""
    for i in range(len(lines) - 1, 1, -1):
        before = next((line for line in reversed(lines[:i]) if line), "")
        if (
            not lines[i - 1]
            and indentation(lines[i]) >= indentation(before) + 4
            and not before.endswith("::")
        ):
            lines[i:i] = [" " * indentation(before) + ".. code-block:: text", ""]


def indentation(line):
    return len(line) - len(line.lstrip())


def source_signature(app, what, name, obj, options, signature, returns):
    """Show types by the names that the source has for them, as `help` does."""
    if what != "function":
        return None
    text = str(shown_signature(obj))
    for alias in (jopt.ScalarOrSchedule, jopt.interop.optax.ScalarOrSchedule):
        text = text.replace(str(alias), "ScalarOrSchedule")
    text = generate.readable(text)
    # Types have one name in jopt and one in its door to optax.
    page = jopt.interop.optax if "interop.optax" in obj.__module__ else jopt
    types = "|".join(name for name in page.__all__ if name[0].isupper())
    text = re.sub(rf"\b({types})\b", rf"{page.__name__}.\1", text)
    arguments, arrow, result = text.partition(" -> ")
    return arguments, result if arrow else ""


def skipped(app, what, name, obj, skip, options):
    """Leave out fields of NamedTuples, without text, and what the engine calls."""
    owner = getattr(obj, "__qualname__", "").rpartition(".")[0]
    field = isinstance(obj, type(Restored.step))
    return True if field or owner == "GradientTransformation" else None


def relink(app, name, content):
    """Links to files beside docs/ lead to their pages."""
    if not name.startswith("generated/"):
        content[0] = generate.relinked(content[0], generate.DOCS)
    if name == "schedule_gallery":
        content[0] = generate.gallery(content[0])


# Cross-references.


def entry(env, name):
    """The path of the entry in the API that a name stands for, the outermost first."""
    paths = generate.PATHS | {path: path for path in env.domains["py"].objects}
    suffix = "." + name.removeprefix("jopt.")
    found = [path for path in paths if f".{path}".endswith(suffix)]
    return paths[min(found, key=lambda path: path.count("."))] if found else None


def resolve(app, env, node, contnode):
    """Resolve a name of any public package in the backticks of a docstring."""
    path = entry(env, node["reftarget"]) if node.get("reftype") == "obj" else None
    return path and link(app, node["refdoc"], path, contnode)


def link(app, page, path, node):
    domain = app.env.domains["py"]
    target = addnodes.pending_xref("")
    return domain.resolve_xref(app.env, page, app.builder, "obj", path, target, node)


# Words, and names in a state, unless they are called or begin with jopt.
WORDS = {"clip", "ema", "full", "get", "identity", "names", "reset", "scale"}
WORDS |= {"schedule", "schema", "step", "trace", "zeros"}
WORDS |= {package.__name__.rpartition(".")[2] for package in generate.packages()}


def link_code(app, doctree, page):
    """Let code in the text of a page, such as `adamw(1e-3)`, lead to the API."""
    for node in list(doctree.findall(nodes.literal)):
        text = node.astext()
        name = re.fullmatch(r"(?:jopt\.)?([a-z]\w*(?:\.\w+)*)(\(.*\))?", text)
        path = f"jopt.{name[1]}" if name and text not in WORDS else ""
        if path in generate.PATHS and not isinstance(node.parent, nodes.reference):
            new = link(app, page, generate.PATHS[path], node.deepcopy())
            if new is not None:
                node.replace_self(new)


def cover(app, env):
    """Warn, and so fail, where a public name has no entry."""
    for package in generate.packages():
        for name in package.__all__:
            path = f"{package.__name__}.{name}"
            if not inspect.ismodule(getattr(package, name)) and (
                generate.PATHS.get(path) not in env.domains["py"].objects
            ):
                logging.getLogger(__name__).warning("no page has an entry for %s", path)


def setup(app):
    generate.write()
    app.connect("source-read", relink)
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", literal_formulas, priority=100)
    app.connect("autodoc-process-signature", source_signature)
    app.connect("autodoc-skip-member", skipped)
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", link_code)
    app.connect("env-check-consistency", cover)
