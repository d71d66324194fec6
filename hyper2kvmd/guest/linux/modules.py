"""Kernel modules of a guest: their dependencies, and the index that modprobe reads.

Reads and writes `modules.dep` as text, and writes kmod's binary form (a trie). Sources: modules.dep(5), kmod's
libkmod-index.h.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

SUFFIX = re.compile(r"\.ko(\.(gz|xz|zst))?$")
INDEX_MAGIC = 0xB007F457
INDEX_VERSION = 0x00020001
HAS_PREFIX, HAS_VALUES, HAS_CHILDREN = 0x80000000, 0x40000000, 0x20000000


def module_name(path: str) -> str:
    """The name for modprobe: `kernel/drivers/block/virtio-blk.ko.xz` is virtio_blk."""
    return SUFFIX.sub("", posixpath.basename(path)).replace("-", "_")


def is_module(path: str) -> bool:
    return SUFFIX.search(path) is not None


@dataclass(frozen=True)
class Dependencies:
    """`paths`: module name to file, relative to the kernel's module folder. `needs`: to the files of its dependencies,
    in the order of modules.dep."""

    paths: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]

    def with_needs(self, wanted: Iterable[str]) -> list[str]:
        """Names of the wanted modules that exist and of all their dependencies, each once."""
        found: dict[str, None] = {}
        for name in wanted:
            if name in self.paths:
                found.update(dict.fromkeys(module_name(path) for path in self.needs[name]))
                found[name] = None
        return [name for name in found if name in self.paths]


def parse(text: str, folder: str) -> Dependencies:
    """modules.dep of the kernel whose module folder (as an absolute path) is `folder`."""
    version = posixpath.basename(folder)
    absolute = re.compile(r"(?:/usr)?/lib/modules/" + re.escape(version) + "/")
    paths: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in text.split("\n"):
        path, colon, rest = line.partition(":")
        if not colon or not is_module(path.strip()):
            continue
        relative = [absolute.sub("", word, 1) for word in (path.strip(), *rest.split())]
        name = module_name(relative[0])
        paths[name] = relative[0]
        needs[name] = tuple(relative[1:])
    return Dependencies(paths, needs)


def builtins(text: str) -> frozenset[str]:
    """Names in modules.builtin."""
    return frozenset(module_name(line.strip()) for line in text.split("\n") if line.strip())


def index(dependencies: Dependencies, present: Mapping[str, str]) -> tuple[bytes, bytes]:
    """`modules.dep` and `modules.dep.bin` for the modules that are `present` (name to file).

    A module's file there can have another name than in the guest: initramfs-tools unpacks `.ko.xz` to `.ko`. An
    index with the wrong names makes every module unloadable.
    """
    lines: dict[str, str] = {}
    for name in sorted(present):
        needed = [module_name(path) for path in dependencies.needs.get(name, ())]
        files = [present[need] for need in needed if need in present]
        lines[name] = f"{present[name]}:" + "".join(f" {file}" for file in files)
    text = "".join(f"{line}\n" for line in lines.values())
    return text.encode(errors="surrogateescape"), _binary(lines)


@dataclass
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    value: tuple[int, bytes] | None = None


def _binary(lines: Mapping[str, str]) -> bytes:
    root = _Node()
    for priority, (name, line) in enumerate(lines.items()):
        node = root
        for char in name.encode("ascii", "replace"):
            node = node.children.setdefault(char, _Node())
        node.value = (priority, line.encode(errors="surrogateescape"))
    out = bytearray(struct.pack(">III", INDEX_MAGIC, INDEX_VERSION, 0))
    struct.pack_into(">I", out, 8, _write_node(root, out))
    return bytes(out)


def _write_node(node: _Node, out: bytearray) -> int:
    """Write a node after its children; returns its offset with flags. A chain of single children becomes a prefix."""
    prefix = bytearray()
    while node.value is None and len(node.children) == 1:
        char, node = next(iter(node.children.items()))
        prefix.append(char)
    offsets = {char: _write_node(child, out) for char, child in node.children.items()}
    at = len(out)
    if prefix:
        at |= HAS_PREFIX
        out += prefix + b"\0"
    if offsets:
        at |= HAS_CHILDREN
        first, last = min(offsets), max(offsets)
        out += bytes((first, last))
        out += struct.pack(f">{last - first + 1}I", *(offsets.get(char, 0) for char in range(first, last + 1)))
    if node.value is not None:
        at |= HAS_VALUES
        priority, value = node.value
        out += struct.pack(">II", 1, priority) + value + b"\0"
    return at


def missing(dependencies: Dependencies, wanted: Iterable[str], present: Collection[str]) -> list[str]:
    """The modules to add so that the wanted ones can be loaded."""
    return [name for name in dependencies.with_needs(wanted) if name not in present]
