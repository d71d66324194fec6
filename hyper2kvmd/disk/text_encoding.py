"""The encoding of VMware's text files: descriptors and .vmx files are in the code page of the host that wrote them.

Source: the assignment `encoding` in both; the names of encodings are those of ICU and IANA.
"""

from __future__ import annotations

import codecs
import re

STATED = re.compile(rb'^[ \t]*\.?encoding[ \t]*=[ \t]*"?([A-Za-z0-9._:-]{1,40})', re.IGNORECASE | re.MULTILINE)
CODE_PAGE = re.compile(r"(?:x-mswin-|ms-?|windows-|ibm-)([0-9]{3,5})(?:[-_].*)?", re.IGNORECASE)
"""ICU's names of code pages: windows-936-2000, ibm-5348_P100-1997."""
WIDER = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "cp950",
    "euc_kr": "cp949",
    "cp936": "gb18030",
    "cp5348": "cp1252",
    "cp943": "cp932",
    "cp1386": "gb18030",
    "windows-31j": "cp932",
}
"""What Windows means by these names: code pages with more characters than the standard."""
SAMPLE = rb"C:\new\x41\u0041 +-~{.xn--bcher-kva."
"""ASCII that an encoding must leave as it is. Codecs for escapes, for host names and for UTF-7 do not."""


def decode(data: bytes) -> str:
    """The text in the encoding that it states, else in UTF-8; bytes that are in neither become lone surrogates."""
    stated = stated_encoding(data)
    codec = _codec(stated) if stated else None
    for name in (codec, "utf-8"):
        if name is None:
            continue
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    return data.decode("utf-8", errors="surrogateescape")


def stated_encoding(data: bytes) -> str | None:
    """The name of the encoding, as the text states it."""
    found = STATED.search(data)
    return found[1].decode("ascii") if found else None


def is_decoded(text: str) -> bool:
    """Whether `decode` understood every byte of this part of a text."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _codec(name: str) -> str | None:
    """Python's codec for a stated encoding; None if there is none, or if it does not extend ASCII."""
    page = CODE_PAGE.fullmatch(name)
    for spelling in (name, f"cp{page[1]}" if page else name):
        codec = WIDER.get(spelling.lower()) or _known(spelling)
        if codec is not None:
            return WIDER.get(codec, codec)
    return None


def _known(name: str) -> str | None:
    try:
        codec = codecs.lookup(name).name
        return codec if SAMPLE.decode(codec) == SAMPLE.decode("ascii") else None
    except (LookupError, ValueError):
        return None
