"""Edits of a hive in memory: keys created, values set, both deleted. No log applies to the result."""

from __future__ import annotations

import struct
from dataclasses import replace

from hyper2kvmd.guest.windows.registry import base_block, security
from hyper2kvmd.guest.windows.registry.cells import NONE
from hyper2kvmd.guest.windows.registry.changes import Changes, EditKind, RegistryEdit
from hyper2kvmd.guest.windows.registry.editable_cells import EditableCells
from hyper2kvmd.guest.windows.registry.hive import Hive, Key
from hyper2kvmd.guest.windows.registry.names import KEY_NAME_LIMIT, VALUE_NAME_LIMIT, encoded, parts
from hyper2kvmd.guest.windows.registry.records import (
    COMPRESSED_KEY_NAME,
    KEY,
    LARGEST_DATA,
    KeyRecord,
    exists,
    read_key,
    whole_value,
)
from hyper2kvmd.guest.windows.registry.refusals import invalid_edit
from hyper2kvmd.guest.windows.registry.stored_values import (
    add_value,
    find_value,
    free_values,
    remove_value,
    replace_value,
)
from hyper2kvmd.guest.windows.registry.subkeys import free_lists, insert_subkey, remove_subkey
from hyper2kvmd.guest.windows.registry.value import Value

WRITTEN_AT, LONGEST_SUBKEY_AT = 4, 52
"""In the record of a key."""


class Editor:
    r"""Edits a copy of a hive. Paths are as in `Hive.find`; names keep the case that they have in the hive.

    All methods raise RegistryDamaged, and RegistryEditInvalid for what a hive cannot hold. The time of an edited key is
    that of the hive's last write, so the same edits of the same hive give the same bytes.
    """

    def __init__(self, hive: Hive) -> None:
        self._before = hive
        self._cells = EditableCells(hive.cells)
        self._hive = replace(hive, cells=self._cells)
        self._changes = Changes()

    @property
    def hive(self) -> Hive:
        """The hive with the edits so far."""
        return self._hive

    @property
    def changes(self) -> tuple[RegistryEdit, ...]:
        return self._changes.all()

    def create(self, path: str) -> None:
        """Create the key and those above it that are missing."""
        self._created(path)

    def set(self, path: str, value: Value) -> None:
        """Set a value of a key, which is created if it is missing."""
        if len(value.name) > VALUE_NAME_LIMIT or len(value.data) > LARGEST_DATA:
            raise invalid_edit(self._cells.hive, f"{path} cannot hold the value {value.name[:80]}: it is too long")
        key = self._created(path)
        record = find_value(self._cells, key.record, value.name)
        before = whole_value(self._cells, record) if record else None
        after = replace(value, name=before.name) if before else value
        if after == before:
            return
        if record is None:
            add_value(self._cells, key.record, after, self._minor)
        else:
            replace_value(self._cells, key.record, record, after, self._minor)
        self._touch(key.record)
        self._changes.value(key.path, after.name, before, after)

    def delete_value(self, path: str, name: str) -> None:
        """Nothing happens if it does not exist."""
        key = self._hive.find(path)
        record = find_value(self._cells, key.record, name) if key else None
        if key is None or record is None:
            return
        before = whole_value(self._cells, record)
        remove_value(self._cells, key.record, record)
        self._touch(key.record)
        self._changes.value(key.path, before.name, before, None)

    def delete_key(self, path: str) -> None:
        """Delete a key with all that is in it. Nothing happens if it does not exist."""
        above, _, _ = "\\".join(parts(path)).rpartition("\\")
        key, parent = self._hive.find(path), self._hive.find(above)
        if key is None or parent is None:
            return
        if not key.above:
            raise invalid_edit(self._cells.hive, "its root cannot be deleted")
        every = self._with_all_below(key)
        for each in every:
            for value in each.values():
                self._changes.value(each.path, value.name, value, None)
            self._changes.key(each.path, EditKind.KEY_DELETED)
        remove_subkey(self._cells, parent.record, key.record.offset)
        for each in every:
            self._free(each.record)
        self._touch(parent.record)

    def bytes(self) -> bytes:
        """A complete primary file; the given one, with its logs applied, if nothing has changed.

        The result is read again: in a hive whose keys and values share cells, an edit can change something else.
        """
        if not self.changes:
            return bytes(self._before.cells.data)
        data = bytearray(self._cells.buffer)
        base_block.write_clean(data, self._hive.block.primary_sequence + 1 & 0xFFFFFFFF, self._cells.bins_size)
        written = bytes(data)
        self._require_edits(Hive.parse(written, name=self._cells.hive))
        return written

    @property
    def _minor(self) -> int:
        return self._hive.block.minor

    def _require_edits(self, written: Hive) -> None:
        for edit in self.changes:
            key = written.find(edit.path)
            if edit.kind == EditKind.VALUE:
                done = (key.value(edit.name) if key else None) == edit.after
            else:
                done = (key is None) == (edit.kind == EditKind.KEY_DELETED)
            if not done:
                raise self._cells.damaged(f"the edit of {edit.path} is lost, since another key uses the same cells")

    def _created(self, path: str) -> Key:
        key = self._hive.root
        for name in parts(path):
            key = key.subkey(name) or self._added(key, name)
        return key

    def _added(self, parent: Key, name: str) -> Key:
        if len(name) > KEY_NAME_LIMIT:
            raise invalid_edit(self._cells.hive, f"{parent.path} cannot hold the key {name[:80]}: its name is too long")
        cells, above = self._cells, read_key(self._cells, parent.record.offset)
        offset = cells.allocate(_key_record(above, name, self._hive.block.written))
        security.share(cells, above.security)
        insert_subkey(cells, above, offset, name, self._minor)
        self._note_name(above, name)
        self._touch(above)
        key = parent.below(read_key(cells, offset))
        self._changes.key(key.path, EditKind.KEY_CREATED)
        return key

    def _note_name(self, key: KeyRecord, name: str) -> None:
        """Callers of Windows allocate memory by the longest name."""
        at = self._cells.at(key.offset, KEY.size)
        (longest,) = struct.unpack_from("<H", self._cells.data, at + LONGEST_SUBKEY_AT)
        own = len(name.encode("utf-16-le", "surrogatepass"))
        self._cells.put("<H", key.offset, LONGEST_SUBKEY_AT, max(longest, own))

    def _with_all_below(self, key: Key) -> list[Key]:
        every, seen = [key], {key.record.offset}
        for each in every:
            for below in each.subkeys():
                if below.record.offset in seen:
                    raise self._cells.damaged(f"the key {below.path} is in two lists")
                seen.add(below.record.offset)
                every.append(below)
        return every

    def _free(self, key: KeyRecord) -> None:
        free_values(self._cells, key)
        free_lists(self._cells, key)
        if exists(key.class_name):
            self._cells.free(key.class_name)
        security.release(self._cells, key.security)
        self._cells.free(key.offset)

    def _touch(self, key: KeyRecord) -> None:
        self._cells.put("<Q", key.offset, WRITTEN_AT, self._hive.block.written)


def _key_record(parent: KeyRecord, name: str, written: int) -> bytes:
    """A key without subkeys and values, with the security descriptor of its parent."""
    raw, compressed = encoded(name)
    flags = COMPRESSED_KEY_NAME if compressed else 0
    lists = (0, 0, NONE, NONE, 0, NONE)
    sizes = (0, 0, 0, 0, 0)
    return KEY.pack(b"nk", flags, written, 0, parent.offset, *lists, parent.security, NONE, *sizes, len(raw), 0) + raw
