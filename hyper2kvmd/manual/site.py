"""A page of the manual for the site and the repository, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hyper2kvmd.manual.page import MARK, REFERENCE, Group, ManualPage, Term

PAGES = {
    "hyper2kvm-migration(5)": "migration.md",
    "hyper2kvmd.yaml(5)": "configuration.md",
    "h2kvmctl(1)": "h2kvmctl.md",
    "hyper2kvmd(8)": "hyper2kvmd.md",
}
"""Manual pages that have a page here, in docs/reference/."""

DOCUMENT = re.compile(r"`docs/([a-z/0-9-]+\.md)`")
"""A page of the documentation, as a manual page names it."""


def render(page: ManualPage) -> str:
    """The text of the page in docs/reference/."""
    title = f"# {page.name}\n\n{page.summary[0].upper()}{page.summary[1:]}. On a host with the package:"
    lines = [title, f"`man {page.section} {page.name}`.", "", *_prose(page)]
    text = REFERENCE.sub(lambda found: _link(found[0]), "\n".join(lines))
    return DOCUMENT.sub(r"[\1](../\1)", text).rstrip("\n") + "\n"


def _link(reference: str) -> str:
    return f"[{reference}]({PAGES[reference]})" if reference in PAGES else reference


def _prose(page: ManualPage) -> Iterator[str]:
    for line in page.prose.splitlines():
        mark = MARK.fullmatch(line)
        if mark is None:
            yield line
        elif mark[1] == "synopsis":
            yield from ("```text", *page.synopsis, "```")
        else:
            yield "\n\n".join(text for group in page.groups[mark[1]] for text in _group(group))


def _group(group: Group) -> Iterator[str]:
    if group.title:
        yield f"### {group.title}"
    if group.text:
        yield group.text
    if any(term.kind in ("key", "command") for term in group.terms):
        for term in group.terms:
            yield from _entry(term)
    elif group.terms:
        yield _points(group.terms)


def _entry(term: Term) -> Iterator[str]:
    yield f"#### {term.name}"
    if term.values:
        separator = ": " if term.kind == "key" else " "
        yield f"`{term.last_name}{separator}{term.values}`"
    yield term.text
    if any(inner.kind == "key" for inner in term.inner):
        for inner in term.inner:
            yield from _entry(inner)
    elif term.inner:
        yield _points(term.inner)


def _points(terms: Sequence[Term]) -> str:
    return "\n".join(f"- `{term.name}{term.values and ' '}{term.values}`: {_indented(term.text)}" for term in terms)


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
