"""The text of an OVF descriptor: encodings, and what is refused before its content counts."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd.errors import Failure, MigrationFailed, Unsafe
from hyper2kvmd.machines.ovf import elements
from hyper2kvmd.machines.ovf.elements import Element, read_elements
from tests.support.ovf_texts import System, envelope, read

NAME = "Größe 管理"


def named(declaration: str, encoding: str, name: str = NAME) -> bytes:
    return envelope(System(name=name), declaration=declaration).decode().encode(encoding)


def refusal(text: bytes) -> Failure:
    with pytest.raises((MigrationFailed, Unsafe)) as refused:
        read(text)
    assert refused.value.message.isprintable()
    return refused.value


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ('<?xml version="1.0" encoding="UTF-8"?>', "utf-8"),
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-8-sig"),
        ('<?xml version="1.0"?>', "utf-8"),
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ('<?xml version="1.0" encoding="UTF-16"?>', "utf-16"),
        ('<?xml version="1.0" encoding="UTF-16"?>', "utf-16-le"),
        ('<?xml version="1.0" encoding="UTF-16"?>', "utf-16-be"),
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-16"),
        ("<?xml version='1.0' encoding='GB18030'?>", "gb18030"),
        ('<?xml version="1.0" standalone="no" encoding = "UTF-8" ?>', "utf-8"),
    ],
)
def test_encodings(declared: str, encoding: str) -> None:
    declared = declared if "standalone" not in declared else '<?xml version="1.0" encoding = "UTF-8" standalone="no" ?>'
    assert read(named(declared, encoding)).machine.name == NAME


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("ISO-8859-1", "latin-1", "Größe"),
        ("windows-1252", "cp1252", "Größe"),
        ("windows-1251", "cp1251", "Сервер"),
        ("Shift_JIS", "shift_jis", "管理"),
        ("EUC-KR", "euc_kr", "관리"),
        ("Big5", "big5", "管理"),
        ("US-ASCII", "ascii", "web01"),
    ],
)
def test_encodings_of_some_languages(declared: str, encoding: str, name: str) -> None:
    assert read(named(f'<?xml version="1.0" encoding="{declared}"?>', encoding, name)).machine.name == name


@pytest.mark.parametrize(
    "encoding", ["EBCDIC-CP-US", "utf-7", "rot13", "idna", "base64", "no-such", "unicode_escape", "utf_32"]
)
def test_an_encoding_that_is_not_supported_is_refused(encoding: str) -> None:
    error = refusal(named(f'<?xml version="1.0" encoding="{encoding}"?>', "utf-8"))
    assert error.code == "ovf-unreadable" and encoding in error.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xff\xfe", "empty"),
        (b"web01.ovf" + bytes(100), "it begins with 'web01.ovf"),
        (b"\x1f\x8b\x08\0\0\0", "byte 1 is not text in utf-8"),
        (b"KDMV\x01\0\0\0", "it begins with 'KDMV"),
        (b"SHA256(a.vmdk)= 00", "it begins with 'SHA256(a.vmdk)"),
        (b"{}", "it begins with '{}'"),
        (b"<!DOCTYPE html><html><body>", "web page"),
        (b"<html><head>", "web page"),
        (b"\n<!-- login --><HTML>", "web page"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"/>', "web page"),
        (b"<domain type='kvm'/>", "its first element is 'domain'"),
        (b"<Envelope xmlns='http://schemas.xmlsoap.org/soap/envelope/'/>", "http://schemas.xmlsoap.org/soap/envelope/"),
        (b"<Envelope>", "ends early at line 1, column 11, in the element 'Envelope'"),
        (b"<Envelope><a></b></Envelope>", "mismatched tag at line 1, column 16"),
        (b"<Envelope a='1' a='2'/>", "duplicate attribute"),
        (b"<Envelope/><Envelope/>", "junk after document element"),
        (b"<Envelope>&nbsp;</Envelope>", "undefined entity"),
        (b"<Envelope>\xe9</Envelope>", "byte 10 is not text in utf-8"),
        (b"<Envelope>\0</Envelope>", "invalid token"),
        (b"<Envelope>&#0;</Envelope>", "reference to invalid character number"),
        ("<Envelope/>".encode("utf-16")[:-1], "not text in utf-16"),
        (b"\xef\xbb\xbf<Envelope>\xed\xa0\x80</Envelope>", "not text in utf-8"),
    ],
)
def test_a_text_that_is_no_ovf_is_refused_with_what_was_seen(text: bytes, said: str) -> None:
    error = refusal(text)
    assert error.code == "ovf-unreadable" and said in error.message


@pytest.mark.parametrize("share", range(1, 20))
def test_a_truncated_descriptor_is_refused(share: int) -> None:
    whole = envelope()
    error = refusal(whole[: len(whole) * share // 20])
    assert error.code == "ovf-unreadable"


def test_a_missing_end_is_refused() -> None:
    assert "ends early" in refusal(envelope().removesuffix(b"</Envelope>")).message


@pytest.mark.parametrize(
    "subset", ["[<!ENTITY x 'y'>]", "SYSTEM 'file:///etc/passwd'", "PUBLIC 'a' 'http://host/x'", ""]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(subset: str, encoding: str) -> None:
    error = refusal(envelope(declaration=f"<!DOCTYPE Envelope {subset}>").decode().encode(encoding))
    assert (error.code, type(error)) == ("ovf-doctype", Unsafe)


def nested(depth: int) -> bytes:
    return b"<a>" * depth + b"</a>" * depth


def test_the_depth_is_limited() -> None:
    assert read_elements(nested(elements.MAX_DEPTH), "x")
    with pytest.raises(MigrationFailed, match="nested") as refused:
        read_elements(nested(elements.MAX_DEPTH + 1), "x")
    assert refused.value.code == "ovf-too-complex"


def test_the_number_of_elements_is_limited() -> None:
    most = elements.MAX_ELEMENTS
    assert len(read_elements(b"<a>" + b"<b/>" * (most - 1) + b"</a>", "x").children) == most - 1
    with pytest.raises(MigrationFailed, match="elements"):
        read_elements(b"<a>" + b"<b/>" * most + b"</a>", "x")


def test_the_number_of_attributes_is_limited() -> None:
    def attributes(count: int) -> bytes:
        return b"<a " + b" ".join(b"a%d=''" % number for number in range(count)) + b"/>"

    assert len(read_elements(attributes(elements.MAX_ATTRIBUTES), "x").attributes) == elements.MAX_ATTRIBUTES
    with pytest.raises(MigrationFailed, match="attributes"):
        read_elements(attributes(elements.MAX_ATTRIBUTES + 1), "x")


def test_the_size_is_limited() -> None:
    def sized(count: int) -> bytes:
        return b"<a>" + b"x\n" * ((count - 7) // 2) + b" " * ((count - 7) % 2) + b"</a>"

    assert read_elements(sized(elements.MAX_BYTES), "x").text
    with pytest.raises(MigrationFailed, match="16 MiB"):
        read_elements(sized(elements.MAX_BYTES + 1), "x")


@pytest.mark.parametrize("begins", [b"<a><!-- ", b"<a b='", b"<a><b ", b"<?xml ", b"<a><?x "])
def test_the_length_of_a_tag_or_comment_is_limited(begins: bytes) -> None:
    with pytest.raises(MigrationFailed, match="one tag of more than 1 MiB"):
        read_elements(begins + b" " * (2 * elements.MAX_TOKEN), "x")


@pytest.mark.parametrize("content", [b"x" * (2 << 20), b"<![CDATA[" + b"x" * (2 << 20) + b"]]>"])
def test_the_length_of_a_text_is_not_limited(content: bytes) -> None:
    assert len(read_elements(b"<a>" + content + b"</a>", "x").text) == 2 << 20


# ---------------------------------------------------------------- namespaces


@pytest.mark.parametrize(
    "uri",
    [
        "http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/1/",
        "http://schemas.dmtf.org/ovf/envelope/2", "http://schemas.dmtf.org/ovf/1/envelope",
        "http://schemas.dmtf.org/wbem/ovf/1/envelope", "http://www.vmware.com/schema/ovf/1/envelope",
    ],
)  # fmt: skip
def test_namespaces_of_ovf(uri: str) -> None:
    text = envelope().replace(b"http://schemas.dmtf.org/ovf/envelope/1", uri.encode())
    assert read(text).machine.name == "web01"


def test_prefixes_are_names_of_namespaces() -> None:
    text = envelope().replace(b"ovf:", b"o-v-f:").replace(b"rasd:", b"r:").replace(b":ovf=", b":o-v-f=")
    assert read(text.replace(b":rasd=", b":r=").replace(b"o-v-f:/disk", b"ovf:/disk")).machine.vcpus == 2


def test_a_namespace_ends_with_its_element() -> None:
    root = read_elements(b"<a xmlns:p='http://www.vmware.com/schema/ovf'><b xmlns:p='urn:x'><p:c/></b><p:d/></a>", "x")
    inner, outer = root.children
    assert (inner.children[0].vocabulary, outer.vocabulary) == ("other", "vmw")


def test_attributes_of_other_vocabularies_do_not_count() -> None:
    root = read_elements(b"<a vmw:id='1' ovf:id='2' x:id='3'/>", "x")
    assert (root.get("id"), root.get("id", "vmw"), root.get("other")) == ("2", "1", None)


# ---------------------------------------------------------------- properties

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"), max_size=20
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(st.sampled_from("abc"), WORDS, st.just([])),
    lambda inner: st.tuples(st.sampled_from("abc"), WORDS, st.lists(inner, max_size=4)),
    max_leaves=20,
)


def written(tree: Any) -> str:
    name, text, children = tree
    inside = "".join(map(written, children))
    return f"<{name} t={chr(34)}{escape(text, {chr(34): '&quot;'})}{chr(34)}>{escape(text)}{inside}</{name}>"


def same(element: Element, tree: Any) -> bool:
    name, text, children = tree
    inner = zip(element.children, children, strict=True)
    return (
        (element.name, element.text, element.get("t")) == (name, text.strip(), text.strip())
        and len(element.children) == len(children)
        and all(same(one, other) for one, other in inner)
    )


@settings(max_examples=200, deadline=None)
@given(TREES, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_was_written_is_read(tree: Any, encoding: str) -> None:
    assert same(read_elements(written(tree).encode(encoding), "x"), tree)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    code = "read"
    try:
        read_elements(data, "x")
    except (MigrationFailed, Unsafe) as error:
        code = error.code
    assert code in ("read", "ovf-unreadable", "ovf-doctype")
