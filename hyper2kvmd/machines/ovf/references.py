"""The files of an OVF package, as its References describe them."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.described import Packing
from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.machines.ovf.quantities import whole_number

PACKINGS: dict[str, Packing] = {"": "none", "identity": "none", "gzip": "gzip", "bzip2": "bzip2"}
MAX_PARTS = 10_000
"""Of one file: a disk of 64 TiB in parts of 7 GiB, as VMware cuts them, has 9,400."""


@dataclass(frozen=True)
class File:
    """What `DescribedDisk` says about its file, with the same names."""

    hrefs: tuple[str, ...]
    whole: str | None
    packing: Packing
    file_size: int | None
    part_size: int | None


class References:
    def __init__(self, envelope: Element, name: str) -> None:
        self._name = name
        files = [file for section in envelope.all("References") for file in section.all("File")]
        self._files: dict[str, list[Element]] = {}
        for file in files:
            self._files.setdefault(file.get("id") or "", []).append(file)

    def has(self, identifier: str) -> bool:
        return identifier in self._files

    def file(self, identifier: str, disk: str) -> File:
        """The file of a disk. Raises MigrationFailed (`ovf-disk-unclear`, `ovf-disk-unsupported`)."""
        found = self._files.get(identifier, []) if identifier else []
        if len(found) != 1:
            known = faults.listed(one for one in self._files if one)
            how = f"{len(found)} files have" if found else "no file has"
            fact = f"{disk} is in the file {faults.shown(identifier)}, but {how} this identifier (there are: {known})"
            raise faults.disk_unclear(self._name, fact)
        href = found[0].get("href")
        if not href:
            raise faults.disk_unclear(self._name, f"the file {faults.shown(identifier)} of {disk} has no ovf:href")
        parts = self._parts(found[0], href, disk)
        whole = href if len(parts) == 1 and parts[0] != href else None
        size, part_size = whole_number(found[0].get("size")), whole_number(found[0].get("chunkSize"))
        return File(parts, whole, self._packing(found[0], disk), size, part_size)

    def _packing(self, file: Element, disk: str) -> Packing:
        compression = file.get("compression") or ""
        if compression.lower() in PACKINGS:
            return PACKINGS[compression.lower()]
        raise faults.disk_unsupported(
            self._name,
            f"the compression {faults.shown(compression)} of {disk} is not supported, only gzip and bzip2",
            "Export the machine again without it",
        )

    def _parts(self, file: Element, href: str, disk: str) -> tuple[str, ...]:
        """One name, or those of all parts: web01.vmdk.000000000 and so on (DSP0243 1.1, section 7.1)."""
        stated = file.get("chunkSize")
        if stated is None:
            return (href,)
        part, size = whole_number(stated), whole_number(file.get("size"))
        if not part or not size:
            seen = f"ovf:chunkSize {faults.shown(stated)}, ovf:size {faults.shown(file.get('size') or '')}"
            raise faults.disk_unclear(
                self._name,
                f"{disk} is in parts, whose number is unknown: {seen}",
                "Join the parts in order with cat, remove ovf:chunkSize, and set ovf:href to the joined file",
            )
        count = -(-size // part)
        if count > MAX_PARTS:
            raise faults.disk_unsupported(
                self._name,
                f"{disk} has {count} parts, more than {MAX_PARTS}",
                "Export the machine again in larger parts",
            )
        return tuple(f"{href}.{number:09d}" for number in range(count))
