"""The encodings of VMware's text files."""

from __future__ import annotations

import pytest

from hyper2kvmd.disk.text_encoding import decode, is_decoded, stated_encoding


@pytest.mark.parametrize("line", ['encoding="{}"', '.encoding = "{}"', "encoding={}", '\tEncoding = "{}"\r'])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("windows-1250", "cp1250"),
        ("ibm-5348_P100-1997", "cp1252"),
        ("windows-936-2000", "gbk"),
        ("x-mswin-950", "cp950"),
        ("EUC-JP", "euc_jp"),
        ("GB18030", "gb18030"),
        ("US-ASCII", "utf-8"),
    ],
)
def test_names_of_encodings_as_vmware_writes_them(name: str, codec: str, line: str) -> None:
    text = {"gbk": "\u865a", "gb18030": "\u865a", "cp950": "\u8a66", "euc_jp": "\u8868"}.get(codec, "\u00fc")
    data = f"first\n{line.format(name)}\n{text}\n".encode(codec)
    assert stated_encoding(data) == name
    assert text in decode(data)


@pytest.mark.parametrize(
    "name", ["hex", "zlib", "rot13", "utf-7", "utf-16", "unicode_escape", "idna", "punycode", "undefined", "cp037", "x"]
)
def test_a_codec_that_is_no_code_page_is_not_used(name: str) -> None:
    text = f'encoding="{name}"\nRW 8 FLAT "d\u00edsk\\x41+AGE-"'
    assert decode(text.encode()) == text


def test_bytes_in_no_encoding_are_marked() -> None:
    text = decode(b'encoding="UTF-8"\nname="\xff"\nother="a"')
    assert [is_decoded(line) for line in text.splitlines()] == [True, False, True]
