"""References to files in an OVF descriptor: which names in the package they mean, and which are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from hyper2kvmd.errors import Unsafe
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.described import DescribedDisk

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LONGEST = 255
"""Bytes of a file name on Linux."""


def files_of(disk: DescribedDisk, exists: Callable[[str], bool], name: str) -> tuple[str, ...]:
    """The names of the disk's files in the package, in order; a likely one for a file that does not exist.

    `exists` answers for plain names, and is only asked about references that can mean several. `name` is the
    descriptor's, for messages. Raises Unsafe (`ovf-href-unsafe`) and MigrationFailed (`ovf-disk-unclear`).
    """
    hrefs = disk.hrefs
    if disk.whole and not any(map(exists, file_names(hrefs[0], name))):
        hrefs = (disk.whole,)
    return tuple(_existing(href, exists, name) for href in hrefs)


def file_names(href: str, name: str) -> tuple[str, ...]:
    """The names that a reference can mean: as a URI, `a%24b` is a$b, but some exporters do not escape names.

    Raises Unsafe (`ovf-href-unsafe`) for anything but the name of a file beside the descriptor.
    """
    written = href.removeprefix("./")
    names = tuple(dict.fromkeys((_unescaped(written), written)))
    for one in names:
        fact = _fault(one)
        if fact:
            raise Unsafe(
                "ovf-href-unsafe",
                f"{name} refers to the file {faults.shown(href)}, {fact}",
                hint="Put the file beside the descriptor, and write its plain name as ovf:href",
            )
    return names


def _existing(href: str, exists: Callable[[str], bool], name: str) -> str:
    names = file_names(href, name)
    there = [one for one in names if exists(one)] if len(names) > 1 else names[:1]
    if len(there) > 1:
        fact = f"the reference {faults.shown(href)} can mean the files {faults.listed(there)}"
        raise faults.disk_unclear(name, fact, "Rename one of them, and correct ovf:href")
    return there[0] if there else names[0]


def _unescaped(href: str) -> str:
    try:
        return unquote_to_bytes(href).decode()
    except UnicodeError:
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
