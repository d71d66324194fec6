"""The site: `make docs` builds it from these pages, and each warning is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*|[^)#\s:]+/)(?:#[^)\s]*)?\)")
"""A link to a folder or to a file that may be outside docs/."""
PAGE = re.compile(r"\]\(([^)#:]+\.md)\)")

project = "hyper2kvmd"
author = "the hyper2kvmd developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True
myst_heading_anchors = 4
html_theme = "furo"
html_title = "hyper2kvmd"
html_show_copyright = False
html_copy_source = False
html_static_path: list[str] = []


def outside_links(_app: Sphinx, document: str, text: list[str]) -> None:
    """Show links to folders and to files outside docs/ as paths: the site does not have them."""
    folder = (DOCS / document).parent

    def shown(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        inside = target.is_relative_to(DOCS) and not target.is_dir()
        if inside:
            return found[0]
        path = target.relative_to(DOCS.parent)
        same = found[1].strip("`") in (str(path), found[2])
        return f"`{path}`" if same else f"{found[1]} (`{path}`)"

    text[0] = LINK.sub(shown, text[0])


def contents(_app: Sphinx, document: str, text: list[str]) -> None:
    """The pages that an index lists, for the sidebar."""
    if Path(document).name in ("index", "README"):
        listed = [link.removesuffix(".md") for link in PAGE.findall(text[0])]
        text[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *listed, "```\n"])


def list_external(app: Sphinx, error: Exception | None) -> None:
    """Write which pages of other sites are linked. Nobody asks these sites."""
    if error is None:
        links = {link for page in app.env.found_docs for link in external(app.env.get_doctree(page))}
        (Path(app.outdir) / "external-links.txt").write_text("".join(f"{link}\n" for link in sorted(links)))


def external(page: nodes.document) -> Iterator[str]:
    for reference in page.findall(nodes.reference):
        if (link := reference.get("refuri", "")).startswith("http"):
            yield link


def setup(app: Sphinx) -> None:
    app.connect("build-finished", list_external)
    app.connect("source-read", outside_links)
    app.connect("source-read", contents)
