"""Reads untrusted XML into a small tree, without document types, entities or network, and within fixed limits.

Expat gets short pieces of the text: the time for a text is proportional to its length, whatever is in it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from xml.parsers import expat

from hyper2kvmd.errors import Failure, Unsafe
from hyper2kvmd.machines.ovf import faults

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
"""Real descriptors have about 12: the depth of nested collections and of a setting in an item."""
MAX_ELEMENTS = 100_000
MAX_ATTRIBUTES = 100
"""Of one element."""
MAX_TOKEN = 1 << 20
"""Bytes of one tag or comment: until its end is read, Expat scans it from its start at each piece."""
PIECE = 64 << 10
"""Bytes."""
HEAD = 1000
"""Characters in which a web page is recognised."""
SHOWN = 60
"""Characters of a foreign text in a message."""

Vocabulary: TypeAlias = Literal["ovf", "cim", "vmw", "vbox", "xsi", "none", "other"]
"""Who defines a name: OVF itself, the settings of CIM (rasd, epasd, sasd, vssd), VMware, VirtualBox, XML Schema."""
VOCABULARIES: tuple[tuple[re.Pattern[str], Vocabulary], ...] = (
    (re.compile(r"https?://schemas\.dmtf\.org/(?:wbem/)?ovf/(?:envelope/\d+|\d+/envelope)/?"), "ovf"),
    (re.compile(r"http://www\.vmware\.com/schema/ovf/\d+/envelope/?"), "ovf"),
    (re.compile(r"https?://schemas\.dmtf\.org/wbem/wscim/\d+/cim-schema/[0-9.]+(?:\+[a-z]*)?/CIM_\w+/?"), "cim"),
    (re.compile(r"http://www\.vmware\.com/schema/ovf/?"), "vmw"),
    (re.compile(r"http://www\.virtualbox\.org/ovf/machine/?"), "vbox"),
    (re.compile(r"http://www\.w3\.org/2001/XMLSchema-instance"), "xsi"),
)
USUAL_PREFIXES: Mapping[str, Vocabulary] = {
    "": "none",
    "ovf": "ovf",
    **dict.fromkeys(("rasd", "epasd", "sasd", "vssd"), "cim"),
    "vmw": "vmw",
    "vbox": "vbox",
    "xsi": "xsi",
}
XMLNS = "xmlns"
CUT_OFF = tuple(
    expat.errors.codes[text]
    for text in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)
"""Errors of a text that ends too early."""
DECLARED = re.compile(rb"<\?xml[^>]{0,200}?\bencoding[ \t\r\n]*=[ \t\r\n]*[\"']([A-Za-z0-9._:-]{1,40})[\"']")
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    ("<\0".encode("ascii"), "utf-16-le"),
    ("\0<".encode("ascii"), "utf-16-be"),
)
ENCODINGS = frozenset(
    {"utf-8", "ascii", "iso8859-1", "cp1250", "cp1251", "cp1252", "gb2312", "gbk", "gb18030", "big5", "shift_jis",
     "cp932", "euc_jp", "euc_kr", "cp949"}
)  # fmt: skip
"""Python's names of what an XML declaration may state; UTF-16 is recognised by its first bytes."""
HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,400}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)


@dataclass(frozen=True, slots=True)
class Element:
    vocabulary: Vocabulary
    name: str
    """Without a prefix."""
    attributes: Mapping[tuple[Vocabulary, str], str]
    children: tuple[Element, ...]
    text: str
    """Its own, without that of its children, and without blanks around it."""
    uri: str = ""
    """Of its namespace."""

    def get(self, name: str, vocabulary: Vocabulary = "ovf") -> str | None:
        """An attribute, with the prefix of the vocabulary or without a prefix, without blanks around it."""
        value = self.attributes.get((vocabulary, name))
        value = self.attributes.get(("none", name)) if value is None else value
        return None if value is None else value.strip()

    def all(self, *names: str) -> Iterator[Element]:
        """The children with one of the names that OVF or nobody defines."""
        return (one for one in self.children if one.name in names and one.vocabulary in ("ovf", "none"))

    def first(self, *names: str) -> Element | None:
        return next(self.all(*names), None)

    def foreign(self, vocabulary: Vocabulary, *names: str) -> Iterator[Element]:
        """The children with one of the names that the vocabulary defines."""
        return (one for one in self.children if one.vocabulary == vocabulary and one.name in names)


@dataclass(slots=True)
class _Open:
    vocabulary: Vocabulary
    name: str
    uri: str
    attributes: dict[tuple[Vocabulary, str], str]
    prefixes: list[str]
    """Those that it declares."""
    children: list[Element] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def closed(self) -> Element:
        text = "".join(self.text).strip()
        return Element(self.vocabulary, self.name, self.attributes, tuple(self.children), text, self.uri)


def read_elements(data: bytes, name: str) -> Element:
    """The root element of the text. `name` is the file's, for messages.

    Raises MigrationFailed (`ovf-unreadable`, `ovf-too-complex`) and Unsafe (`ovf-doctype`).
    """
    if len(data) > MAX_BYTES:
        raise faults.too_complex(name, f"more than {MAX_BYTES >> 20} MiB")
    text = _decoded(data, name)
    if HTML.match(text[:HEAD]):
        raise faults.unreadable(name, "it is a web page (HTML)", hint="Download or export the file again")
    return _Reader(name).read(text.encode())


def _decoded(data: bytes, name: str) -> str:
    mark, encoding = next(((mark, one) for mark, one in BOMS if data.startswith(mark)), (b"", ""))
    if not encoding:
        declared = DECLARED.match(data)
        encoding = _codec(declared[1].decode("ascii"), name) if declared else "utf-8"
    try:
        text = data.decode(encoding)
        text.encode()
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise faults.unreadable(
            name, f"byte {start} is not text in {encoding}, and it begins with {data[:16]!r}"
        ) from error
    return text.removeprefix("\ufeff") if mark else text


def _codec(declared: str, name: str) -> str:
    try:
        codec = codecs.lookup(declared).name if declared.isascii() else ""
    except (LookupError, ValueError):
        codec = ""
    if codec in ENCODINGS:
        return codec
    raise faults.unreadable(name, f"its encoding {declared} is not supported", "Convert the file to UTF-8 with iconv")


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.path: list[_Open] = []
        self.root: Element | None = None
        self.elements = 0
        self.vocabularies: dict[str, Vocabulary] = {"": "none"}
        self.namespaces: dict[str, list[str]] = {}
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype

    def read(self, data: bytes) -> Element:
        try:
            for at in range(0, len(data), PIECE):
                self.parser.Parse(data[at : at + PIECE], False)
                if min(at + PIECE, len(data)) - self.parser.CurrentByteIndex > MAX_TOKEN:
                    raise faults.too_complex(self.name, f"one tag of more than {MAX_TOKEN >> 20} MiB")
            self.parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise self._malformed(error, data) from error
        if self.root is None:
            raise faults.unreadable(self.name, "it has no content")
        return self.root

    def _malformed(self, error: expat.ExpatError, data: bytes) -> Failure:
        reason = expat.ErrorString(error.code)
        if not data.strip():
            return faults.unreadable(self.name, "the file is empty")
        if self.root is None and not self.path:
            begins = data[:SHOWN].decode(errors="replace")
            return faults.unreadable(self.name, f"{reason}: it begins with {begins!r}")
        where = f"line {error.lineno}, column {error.offset + 1}"
        inside = f", in the element {faults.shown(self.path[-1].name)}" if self.path else ""
        fact = f"it ends early at {where}" if error.code in CUT_OFF else f"{reason} at {where}"
        return faults.unreadable(self.name, f"{fact}{inside}")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise faults.too_complex(self.name, f"more than {MAX_ELEMENTS} elements")
        if len(self.path) >= MAX_DEPTH:
            raise faults.too_complex(self.name, f"elements nested more than {MAX_DEPTH} deep")
        if len(attributes) > MAX_ATTRIBUTES:
            raise faults.too_complex(self.name, f"an element with more than {MAX_ATTRIBUTES} attributes")
        declared = [(key[len(XMLNS) + 1 :], uri) for key, uri in attributes.items() if _is_declaration(key)]
        for prefix, uri in declared:
            self.namespaces.setdefault(prefix, []).append(uri)
        vocabulary, name, uri = self._resolved(tag)
        own = {self._attribute(key): value for key, value in attributes.items() if not _is_declaration(key)}
        self.path.append(_Open(vocabulary, name, uri, own, [prefix for prefix, _ in declared]))

    def _end(self, _tag: str) -> None:
        closed = self.path.pop()
        for prefix in closed.prefixes:
            self.namespaces[prefix].pop()
        element = closed.closed()
        if self.path:
            self.path[-1].children.append(element)
        else:
            self.root = element

    def _text(self, text: str) -> None:
        if self.path:
            self.path[-1].text.append(text)

    def _doctype(self, *_: object) -> None:
        raise Unsafe(
            "ovf-doctype",
            f"{self.name}: it has a document type (<!DOCTYPE>), which can define entities and name other files",
            hint="Remove the document type: no OVF needs one. Find out who added it",
        )

    def _attribute(self, key: str) -> tuple[Vocabulary, str]:
        if ":" not in key:
            return "none", key
        vocabulary, name, _ = self._resolved(key)
        return vocabulary, name

    def _resolved(self, tag: str) -> tuple[Vocabulary, str, str]:
        """The vocabulary, the name and the namespace. A prefix that is not declared means what it usually does."""
        prefix, _, name = tag.rpartition(":")
        uris = self.namespaces.get(prefix)
        if uris:
            return self._vocabulary(uris[-1]), name, uris[-1]
        return USUAL_PREFIXES.get(prefix, "other"), name, ""

    def _vocabulary(self, uri: str) -> Vocabulary:
        if uri not in self.vocabularies:
            found = (one for pattern, one in VOCABULARIES if pattern.fullmatch(uri))
            self.vocabularies[uri] = next(found, "other")
        return self.vocabularies[uri]


def _is_declaration(key: str) -> bool:
    return key == XMLNS or key.startswith(f"{XMLNS}:")
