"""A registry hive, read: its keys and their values. Nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.guest.windows.registry import base_block
from hyper2kvmd.guest.windows.registry.base_block import BaseBlock, read_base_block
from hyper2kvmd.guest.windows.registry.cells import LARGEST_HIVE, Cells
from hyper2kvmd.guest.windows.registry.lists import find_subkey, read_leaves
from hyper2kvmd.guest.windows.registry.log import replay
from hyper2kvmd.guest.windows.registry.names import parts, upcase
from hyper2kvmd.guest.windows.registry.records import KeyRecord, read_key, read_value, value_offsets, whole_value
from hyper2kvmd.guest.windows.registry.refusals import damaged
from hyper2kvmd.guest.windows.registry.value import Value

DEEPEST = 512
"""Levels of keys; Windows allows no more."""


@dataclass(frozen=True)
class Hive:
    """All methods of a hive and its keys raise RegistryDamaged when they meet something impossible."""

    cells: Cells
    block: BaseBlock
    replayed: int
    """Entries of transaction logs that were applied; 0 for a hive that was complete."""

    @classmethod
    def parse(cls, primary: bytes, logs: Sequence[bytes] = (), *, name: str = "of the guest") -> Hive:
        """The hive of these bytes, with its transaction logs applied if Windows did not write it completely.

        `name` is for messages, for example SYSTEM. Raises RegistryDamaged and RegistryLogUnfit.
        """
        if len(primary) > base_block.LENGTH + LARGEST_HIVE + base_block.LENGTH:
            raise damaged(name, f"it has {len(primary)} bytes; at most {LARGEST_HIVE >> 20} MiB are supported")
        block = read_base_block(primary)
        if block is None and not logs:
            raise damaged(name, "it does not begin with a registry header")
        if block is not None and block.complete:
            return cls._complete(name, primary, block, 0)
        done = replay(name, primary, logs)
        return cls._complete(name, done.data, done.block, done.entries)

    @classmethod
    def _complete(cls, name: str, data: bytes | bytearray, block: BaseBlock, replayed: int) -> Hive:
        if block.major != 1 or block.minor not in base_block.MINOR_VERSIONS:
            raise damaged(name, f"version {block.major}.{block.minor} of the format is not supported")
        if block.file_type != base_block.PRIMARY:
            raise damaged(name, "it is a transaction log")
        hive = cls(Cells(name, data, block.bins_size), block, replayed)
        read_key(hive.cells, block.root)
        return hive

    @property
    def root(self) -> Key:
        return Key(self, read_key(self.cells, self.block.root), ())

    def find(self, path: str) -> Key | None:
        return self.root.find(path)


@dataclass(frozen=True)
class Key:
    """A key as it was when it was read; find it again after an edit."""

    hive: Hive
    record: KeyRecord
    above: tuple[str, ...]
    """The names of the keys that it is in, from below the root, and its own."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def path(self) -> str:
        return "\\".join(self.above)

    def subkeys(self) -> Iterator[Key]:
        """In the order of the hive, which is that of their names."""
        for leaf in read_leaves(self.hive.cells, self.record):
            for offset in leaf.keys:
                yield self.below(read_key(self.hive.cells, offset))

    def subkey(self, name: str) -> Key | None:
        """Upper and lower case are the same."""
        found = find_subkey(self.hive.cells, self.record, name)
        return self.below(found) if found else None

    def find(self, path: str) -> Key | None:
        r"""The key at a path below this one, such as `Select` or `ControlSet001\Services\disk`."""
        key: Key | None = self
        for name in parts(path):
            key = key.subkey(name) if key else None
        return key

    def values(self) -> Iterator[Value]:
        cells = self.hive.cells
        for offset in value_offsets(cells, self.record):
            yield whole_value(cells, read_value(cells, offset))

    def value(self, name: str) -> Value | None:
        """Upper and lower case are the same; the default value has an empty name."""
        cells, wanted = self.hive.cells, upcase(name)
        for offset in value_offsets(cells, self.record):
            record = read_value(cells, offset)
            if upcase(record.name) == wanted:
                return whole_value(cells, record)
        return None

    def below(self, record: KeyRecord) -> Key:
        """The subkey with this record."""
        if len(self.above) >= DEEPEST:
            raise self.hive.cells.damaged(f"its keys are nested more than {DEEPEST} deep")
        return Key(self.hive, record, (*self.above, record.name))
