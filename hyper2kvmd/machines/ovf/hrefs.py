"""References to files in an OVF descriptor: which names in the package one can mean, and which are refused."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from hyper2kvmd.errors import Unsafe

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
LONGEST = 255
"""Bytes of a file name on Linux."""


def file_names(href: str) -> tuple[str, ...]:
    """The names of files that a reference can mean: as a URI, `a%24b` is a$b; some exporters do not escape names.

    If several of them exist, the reference is ambiguous. Raises Unsafe (`ovf-href-unsafe`) for anything but the name
    of a file beside the descriptor.
    """
    names = tuple(dict.fromkeys((_unescaped(href), href)))
    for name in names:
        fact = _fault(name)
        if fact:
            raise Unsafe(
                "ovf-href-unsafe",
                f"the OVF refers to the file {href[:LONGEST]!r}, {fact}",
                hint="Put the file beside the OVF, and write its plain name as ovf:href",
            )
    return names


def _unescaped(href: str) -> str:
    try:
        return unquote_to_bytes(href).decode()
    except UnicodeDecodeError:
        return href


def _fault(name: str) -> str:
    """Why it is not the plain name of a file; empty if it is."""
    if SCHEME.match(name):
        return "which is on another computer"
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        return "which is not the plain name of a file"
    if not name.isprintable() or len(name.encode(errors="surrogatepass")) > LONGEST:
        return "which is not a valid file name"
    return ""
