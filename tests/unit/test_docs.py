"""The pages of the documentation: links lead somewhere, each page is listed, and sentences can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd import catalogue, manual
from hyper2kvmd.cli.ctl import COMMANDS
from hyper2kvmd.manual import keys_page
from hyper2kvmd.model.asked import Migration
from tests.support import doc_blocks
from tests.support.doc_blocks import MARK, MARKED, REPOSITORY, blocks, of_server, pages

DOCS = REPOSITORY / "docs"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
WRITTEN = [page for page in pages() if page.parent.name != "reference"]
"""Pages of prose; the style of generated texts is tested where these are."""
OTHERS = [REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md", "packaging/container/README.md")]
LONGEST = 35
"""Words of a sentence."""
RIDDLES = re.compile(
    r"\b(cannot serve|takes? the domain|which KVM has not|that which|is told in|has to say|came to their end"
    r"|come round|minds? itself|can be told|it tells|nobody would|may not be read by)\b",
    re.IGNORECASE,
)
"""Phrases that a reader has to translate."""


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


each_page = pytest.mark.parametrize("page", pages(), ids=named)
each_written_page = pytest.mark.parametrize("page", WRITTEN, ids=named)


# ---------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one).lower()).replace(" ", "-")
        for one in headings
    }


def dead_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", [*pages(), *OTHERS], ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One `two`\n\n[a](#one-two) [b](#three) [c](b.md) [d](a.md#one-two)\n")
    assert list(dead_links(page)) == ["#three", "b.md"]


@each_page
def test_the_sidebar_has_it(page: Path) -> None:
    if page.parent == REPOSITORY or page == DOCS / "index.md":
        return
    listed = {
        (index.parent / link).resolve()
        for index in (*DOCS.rglob("index.md"), *DOCS.rglob("README.md"))
        for link in LINK.findall(index.read_text())
    }
    assert page in listed, "no index lists it"


def test_units_name_pages_that_exist() -> None:
    installed = "file:///usr/share/doc/hyper2kvmd/"
    manuals = {"h2kvmctl(1)", "hyper2kvmd(8)", "hyper2kvmd.yaml(5)", "hyper2kvm-migration(5)"}
    for unit in (REPOSITORY / "systemd").iterdir():
        (line,) = re.findall(r"^Documentation=(.*)$", unit.read_text(), re.MULTILINE)
        for one in line.split():
            path = one.removeprefix(installed)
            assert one.removeprefix("man:") in manuals or (path != one and (REPOSITORY / path).is_file()), one


# ---------------------------------------------------------------- words


def sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n|^\s*[-*] |^\d+\. |^\|.*$|^#.*$", FENCE.sub("", text), flags=re.MULTILINE):
        plain = re.sub(r"`[^`]*`", "word", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph))
        yield from re.split(r"(?<=[.?!])\s|: |; ", " ".join(plain.split()))


@each_written_page
def test_sentences_are_short(page: Path) -> None:
    assert [one for one in sentences(page.read_text()) if len(one.split()) > LONGEST] == []


def texts() -> Iterator[tuple[str, str]]:
    yield from ((named(page), page.read_text()) for page in WRITTEN)
    for name in ("hyper2kvm-migration", "hyper2kvmd.yaml", "h2kvmctl", "hyper2kvmd"):
        yield name, keys_page.prose(name)
    for name in manual.SUBJECTS:
        yield from ((key.name, f"{key.text} {key.default}") for key in manual.keys(name).values())


def test_no_text_is_a_riddle() -> None:
    assert [(name, found[0]) for name, text in texts() if (found := RIDDLES.search(text))] == []


def test_the_glossary_is_sorted_and_explains_a_term_once() -> None:
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "reference" / "glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(set(terms), key=str.lower)


@each_written_page
def test_commands_exist(page: Path) -> None:
    used = set(
        re.findall(
            r"h2kvmctl ([a-z]+(?:-[a-z]+)*)\b",
            "\n".join(re.findall(r"```shell\n.*?```|`[^`]+`", page.read_text(), re.DOTALL)),
        )
    )
    assert used - COMMANDS.keys() == set()


@each_written_page
def test_codes_exist(page: Path) -> None:
    text = page.read_text()
    used = {*re.findall(r"errors\.md#([a-z0-9-]+)", text), *re.findall(r"h2kvmctl explain ([a-z]+-[a-z-]+)", text)}
    assert used - catalogue.entries().keys() == set()


def test_virt_v2v_is_translated_to_keys_that_exist() -> None:
    text = (DOCS / "howto" / "from-virt-v2v.md").read_text()
    answers = [row.rpartition(" | ")[2] for row in re.findall(r"^\| `.*$", text, re.MULTILINE)]
    assert len(answers) > 30
    for answer in answers:
        spans = re.findall(r"`([^`]+)`", answer)
        keys = [span.partition(":")[0] for span in spans if re.match(r"[a-z_]+(:|$)", span)]
        others = [span for span in spans if span.partition(":")[0] not in keys]
        assert {key for key in keys if key != "bridge"} <= Migration.model_fields.keys(), answer
        assert keys or others or answer.startswith("not available"), answer


# ---------------------------------------------------------------- blocks that run


@each_page
def test_marks_stand_above_blocks(page: Path) -> None:
    text = page.read_text()
    assert len(MARK.findall(text)) == len(MARKED.findall(text))


def test_blocks_are_read(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "<!-- file: a.yaml -->\n```yaml\nb: 1\n```\n\n<!-- run: here -->\n```shell\nls\n```\n```shell\nrm\n```\n"
    )
    assert [(one.kind, one.name, one.text) for one in blocks(page)] == [
        ("file", "a.yaml", "b: 1\n"),
        ("here", "", "ls\n"),
    ]
    page.write_text("<!-- run: there -->\n```shell\nls\n```\n")
    with pytest.raises(ValueError, match="there"):
        doc_blocks.blocks(page)


def test_blocks_for_a_server_are_listed() -> None:
    assert {"docs/howto/install.md", "docs/howto/monitoring.md", "docs/howto/upgrade.md"} <= of_server().keys()
