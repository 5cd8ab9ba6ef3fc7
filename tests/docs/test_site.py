"""The site: every page is in its contents, every public name has an entry."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import jopt


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text()


@pytest.fixture(scope="module")
def generate():
    """The script that makes pages from the library; without what it writes."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def api(generate):
    """The pages of the API."""
    return generate.api()


def test_every_public_name_has_an_entry_on_a_page(generate, api):
    text = "".join(api.values())
    entries = set(re.findall(r"^\.\. auto\w+:: (\S+)", text, re.M))
    for page in re.split(r"^(?=\.\. py:currentmodule:: )", text, flags=re.M)[1:]:
        package = page.split()[2]
        data = re.findall(r"^\.\. py:data:: (\w+)", page, re.M)
        entries |= {f"{package}.{name}" for name in data}
    stubs = [path.parent for path in (ROOT / "jopt").rglob("__init__.pyi")]
    names = [".".join(stub.relative_to(ROOT).parts) for stub in stubs]
    public = {
        f"{name}.{n}" for name in names for n in importlib.import_module(name).__all__
    }
    assert len(public) > 700
    assert not public - generate.PATHS.keys()
    assert not set(generate.PATHS.values()) - entries


def test_every_page_is_in_the_contents_once():
    contents = re.findall(r"^```\{toctree\}\n(.*?)^```", INDEX, re.M | re.S)
    entries = [x for tree in contents for x in re.findall(r"^([a-z_]+)$", tree, re.M)]
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert sorted(entries) == sorted(pages)


def test_the_first_page_leads_to_every_page():
    links = set(re.findall(r"\]\((\w+)\.md", INDEX))
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} == links


def test_the_gallery_has_every_schedule_once(generate):
    calls = generate.CALL.findall((DOCS / "schedule_gallery.md").read_text())
    known = set(jopt.names(kind="schedule")) & set(jopt.__all__)
    assert sorted(name for _, name, _ in calls) == sorted(known)


def test_links_to_files_beside_the_pages_lead_to_pages(generate):
    files = generate.beside()
    text = "[a](CONTRIBUTING.md#test) [b](../examples/03_nnx.py) [c](http://x/y.md)"
    linked = generate.relinked(text.replace("](C", "](../C"), DOCS)
    page = "/generated/files/examples/03_nnx.py.md"
    assert linked == (
        f"[a](/generated/files/CONTRIBUTING.md#test) [b]({page}) [c](http://x/y.md)"
    )
    assert page.removeprefix("/generated/") in files
