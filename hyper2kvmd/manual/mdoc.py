"""A page of the manual for `man`, in mdoc(7)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from hyper2kvmd import manual
from hyper2kvmd.manual.page import MARK, REFERENCE, ManualPage, Term

WIDTH = 79
HEADINGS = {"h2": "Sh", "h3": "Ss"}
MACROS = {"key": "Ic", "command": "Cm", "option": "Fl"}
PATH = re.compile(r"[/~.][^ ]*/?|[a-z]+/|[\w-]+\.(yaml|conf|socket|log|txt|vmx)")
SENTENCE_END = re.compile(r"(?<=[.?!]) (?=[A-Z0-9\\])")
OPTION = re.compile(r"(--[a-z-]+)(?: (\S.*))?")


def render(page: ManualPage, day: date) -> str:
    """The source of the page. `day` is the date at its foot."""
    return "\n".join([*_head(page, day), *_blocks(_parsed(page.prose), page), ""])


def _parsed(text: str) -> list[SyntaxTreeNode]:
    return SyntaxTreeNode(MarkdownIt().parse(text)).children


def _head(page: ManualPage, day: date) -> Iterator[str]:
    yield f".Dd {day:%B} {day.day}, {day.year}"
    yield f".Dt {page.name.upper()} {page.section}"
    yield ".Os Linux"
    yield ".Sh NAME"
    names = [page.name, *page.other_names]
    yield from (f".Nm {name} ," for name in names[:-1])
    yield f".Nm {names[-1]}"
    yield f".Nd {page.summary}"


def _blocks(nodes: Sequence[SyntaxTreeNode], page: ManualPage | None = None) -> Iterator[str]:
    first = True
    for node in nodes:
        if node.type == "paragraph" and not first:
            yield ".Pp"
        yield from _block(node, page)
        first = node.type in ("heading", "html_block")


def _block(node: SyntaxTreeNode, page: ManualPage | None) -> Iterator[str]:
    match node.type:
        case "heading":
            title = _plain(node)
            yield f".{HEADINGS[node.tag]} {title.upper() if node.tag == 'h2' else title}"
        case "paragraph":
            yield from _filled(_inline(node))
        case "fence":
            yield ".Bd -literal -offset indent"
            yield from (_protected(_escaped(line)) for line in node.content.splitlines())
            yield ".Ed"
        case "bullet_list":
            yield from _list(node)
        case "html_block" if page is not None and (mark := MARK.match(node.content)):
            yield from _marked(mark[1], page)
        case _:
            raise ValueError(f"no form in mdoc for {node.type}")


def _marked(mark: str, page: ManualPage) -> Iterator[str]:
    if mark == "synopsis":
        for line in page.synopsis:
            yield from _command_line(line)
        return
    for group in page.groups[mark]:
        if group.title:
            yield f".Ss {group.title}"
        if group.text:
            yield from _blocks(_parsed(group.text))
        yield from _terms(group.terms)


def _terms(terms: Sequence[Term]) -> Iterator[str]:
    if not terms:
        return
    yield ".Bl -tag -width Ds"
    for term in terms:
        yield f".It {_head_of(term)}"
        yield from _blocks(_parsed(term.text))
        yield from _terms(term.inner)
    yield ".El"


def _head_of(term: Term) -> str:
    macro, name = MACROS.get(term.kind, ""), term.last_name
    if term.kind == "option":
        name = " , ".join(part.removeprefix("-") for part in name.split(", "))
    between = " :" if term.kind == "key" and term.values else ""
    values = term.values.replace(":", " : Ns Ar ") if term.kind == "key" else term.values
    return " ".join(filter(None, [macro, f"{name}{between}", f"Ar {values}" if values else ""]))


def _list(node: SyntaxTreeNode) -> Iterator[str]:
    """Items that begin with code and a colon are entries; others are points."""
    items = [item.children for item in node.children]
    heads = [_entry_head(item[0]) for item in items]
    if None in heads:
        yield ".Bl -bullet -compact"
        for item in items:
            yield ".It"
            yield from _blocks(item)
    else:
        yield ".Bl -tag -width Ds"
        for head, item in zip(heads, items, strict=True):
            yield f".It {head}"
            text = _inline(item[0]).partition(": ")[2]
            yield from _filled(text)
            for block in item[1:]:
                yield from _block(block, None)
    yield ".El"


def _entry_head(paragraph: SyntaxTreeNode) -> str | None:
    found = re.match(r"((?:`[^`]+`(?:, )?)+): ", paragraph.children[0].content)
    if found is None:
        return None
    names = re.findall("`([^`]+)`", found[1])
    macro = "Pa" if PATH.fullmatch(names[0]) else "Ev" if re.fullmatch("[A-Z_]{4,}", names[0]) else ""
    return " ".join(filter(None, [macro, " , ".join(names)]))


def _command_line(line: str) -> Iterator[str]:
    """`h2kvmctl --config FILE [--debug]`, one line for each option."""
    yield ".Nm"
    for optional, needed in re.findall(r"\[([^]]+)\]|(--\S+ [A-Za-z]+|[A-Za-z]+)", line.partition(" ")[2]):
        yield f".Op {_usage(optional)}" if optional else f".{_usage(needed)}"


def _usage(text: str) -> str:
    parts = [OPTION.match(part) for part in re.split(r" (?=--)", text)]
    words = [f"Fl {part[1][1:]}{f' Ar {part[2]}' if part[2] else ''}" if part else f"Ar {text}" for part in parts]
    return " ".join(words)


# ---------------------------------------------------------------- text


def _inline(paragraph: SyntaxTreeNode) -> str:
    """The paragraph on one line, with the fonts of roff."""
    return "".join(_span(child) for child in paragraph.children[0].children)


def _span(node: SyntaxTreeNode) -> str:
    match node.type:
        case "text":
            return REFERENCE.sub(r"\\fB\1\\fR(\2)", _escaped(node.content))
        case "softbreak":
            return " "
        case "code_inline":
            return _code(node.content)
        case "em":
            return rf"\fI{_plain(node)}\fR"
        case "strong":
            return rf"\fB{_plain(node)}\fR"
        case "link":
            return "".join(_span(child) for child in node.children)
        case _:
            raise ValueError(f"no form in mdoc for {node.type}")


def _code(text: str) -> str:
    shown = _escaped(text).replace("-", r"\-")
    if PATH.fullmatch(text):
        return rf"\fI{shown}\fR"
    bold = text in _names() or re.fullmatch(r"--[a-z-]+|[A-Z_]{4,}", text)
    return rf"\fB{shown}\fR" if bold else rf"\(oq{shown}\(cq"


@cache
def _names() -> frozenset[str]:
    """Programs and keys, which are bold."""
    return frozenset({"h2kvmctl", "hyper2kvmd", "hyper2kvm", *manual.keys("migration"), *manual.keys("configuration")})


def _plain(node: SyntaxTreeNode) -> str:
    return _escaped("".join(child.content for child in node.walk() if child.type in ("text", "code_inline")))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("“", r"\(lq").replace("”", r"\(rq")


def _protected(line: str) -> str:
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _filled(text: str) -> Iterator[str]:
    """One sentence begins a line, as mdoc wants it."""
    for sentence in SENTENCE_END.split(text):
        for line in textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False):
            yield _protected(line)
