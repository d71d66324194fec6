"""netplan's YAML: `ethernets`, read by the strict reader of our own files; values are edited in place.

A file that this reader refuses (anchors, tags, a file beyond its limits) is not supported, and is reported.
Source: netplan's YAML reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.linux.network.selector import OUR_DRIVER, Choose, Selector, is_vmware_driver
from hyper2kvmd.mac import normal_mac
from hyper2kvmd.yaml_source import (
    Listing,
    Mapping,
    Node,
    Position,
    Scalar,
    read,
)

NOTHING = Mapping((), Position(1, 1))


def visit(file: str, text: str, choose: Choose) -> str:
    """Raises MigrationFailed (`guest-network-unclear`) for a text that cannot be parsed completely."""
    document = read(text)
    if document.root is None:
        raise MigrationFailed(
            "guest-network-unclear",
            f"the guest's {file} cannot be parsed: {document.problems[0].message}",
            hint="Compare its network settings with the interfaces of the new virtual machine by hand",
            kind=Kind.PERMANENT,
        )
    body = text.removeprefix("\ufeff")
    lines = body.split("\n")
    edits: list[tuple[Scalar, str]] = []
    for number, entry in enumerate(_within(_within(document.root, "network"), "ethernets").entries):
        match, new_name = _within(entry.value, "match"), _get(entry.value, "set_name")
        written_mac = next(iter(_scalars(_get(match, "macaddress"))), None)
        known = normal_mac(written_mac.text) if written_mac else None
        names = _scalars(new_name) or (_scalars(_get(match, "name")) if match.entries else [])
        written = tuple(scalar.text for scalar in names) or (() if match.entries else (entry.written,))
        nic = choose(Selector(file, number, written, () if known is None else (known,)))
        for driver in _scalars(_get(match, "driver")):
            if is_vmware_driver(driver.text):
                edits.append((driver, OUR_DRIVER))
        if nic is not None and written_mac is not None and known not in (None, nic.mac):
            edits.append((written_mac, nic.mac))
    for scalar, word in sorted(edits, key=lambda edit: (edit[0].place.line, edit[0].place.column), reverse=True):
        _exchange(lines, scalar, word)
    return text.removesuffix(body) + "\n".join(lines)


def addresses(text: str) -> Iterator[tuple[str, str]]:
    """Interface, or "" if a match selects it, and static address with its prefix."""
    network = _within(read(text).root, "network")
    for kind in ("ethernets", "bonds", "bridges", "vlans"):
        for entry in _within(network, kind).entries:
            names = _scalars(_get(entry.value, "set_name"))
            written = "" if _within(entry.value, "match").entries else entry.written
            for address in _scalars(_get(entry.value, "addresses")):
                yield names[0].text if names else written, address.text


def _get(node: Node | None, key: str) -> Node | None:
    entries = node.entries if isinstance(node, Mapping) else ()
    return next((entry.value for entry in entries if entry.key == key), None)


def _within(node: Node | None, key: str) -> Mapping:
    inner = _get(node, key)
    return inner if isinstance(inner, Mapping) else NOTHING


def _scalars(node: Node | None) -> list[Scalar]:
    nodes = node.items if isinstance(node, Listing) else (node,)
    return [item for item in nodes if isinstance(item, Scalar)]


def _exchange(lines: list[str], scalar: Scalar, text: str) -> None:
    """Both texts are words without escapes, so the line contains the scalar itself, quoted or not."""
    line, column = scalar.place.line - 1, scalar.place.column - 1 + scalar.quoted
    before, after = lines[line][:column], lines[line][column:]
    if after.startswith(scalar.text):
        lines[line] = before + text + after.removeprefix(scalar.text)
