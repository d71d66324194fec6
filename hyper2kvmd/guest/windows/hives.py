"""The registry hives of one Windows guest, with the edits of its repairs.

A hive is read when it is first used, together with its transaction logs. It becomes a staged file only if a repair
changes one of its values: Windows applies its logs by itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.windows.registry import Editor, Hive, RegistryEdit
from hyper2kvmd.volumes.ntfs.volume import FILE_LIMIT

LARGEST_HIVE = FILE_LIMIT
LOGS = (".LOG1", ".LOG2")
STAGED_AS = "registry"
"""The name of the repair that writes hives."""


class Hives:
    def __init__(self, tree: GuestTree, folder: str) -> None:
        self._tree, self._folder = tree, folder
        self._before: dict[str, bytes] = {}
        self._editors: dict[str, Editor] = {}
        self._hives: dict[str, Hive] = {}

    def path(self, name: str) -> str:
        """The file of a hive in the tree."""
        return posixpath.join(self._folder, name)

    def has(self, name: str) -> bool:
        return self._tree.is_file(self.path(name))

    def read(self, name: str) -> Hive:
        """The hive as Windows would see it, without edits of repairs.

        Raises MigrationFailed: `windows-registry-incomplete`, `guest-file-too-large`, and as `Hive.parse` does.
        """
        if name not in self._hives:
            if not self.has(name):
                raise incomplete(f"the file {name}")
            path = self.path(name)
            self._before[name] = self._tree.read_bytes(path, LARGEST_HIVE)
            logs = [self._tree.read_bytes(path + end, LARGEST_HIVE) for end in LOGS if self._tree.is_file(path + end)]
            self._hives[name] = Hive.parse(self._before[name], [log for log in logs if log], name=name)
        return self._hives[name]

    def edit(self, name: str) -> Editor:
        """Raises as `read` does."""
        if name not in self._editors:
            self._editors[name] = Editor(self.read(name))
        return self._editors[name]

    def edits(self) -> Mapping[str, tuple[RegistryEdit, ...]]:
        """What all repairs have changed so far, by hive."""
        return {name: editor.changes for name, editor in self._editors.items() if editor.changes}

    def stage(self) -> None:
        """Put the changed hives into the tree. Raises MigrationFailed as `GuestTree.write_bytes` does."""
        for name in self.edits():
            self._tree.write_bytes(self.path(name), self._editors[name].bytes(), fix=STAGED_AS, summary="edited values")


def incomplete(missing: str) -> MigrationFailed:
    return MigrationFailed(
        "windows-registry-incomplete",
        f"the guest's registry lacks {missing}, or it is invalid",
        hint="Start Windows on the source, check that it runs, shut it down and export the machine again",
        kind=Kind.PERMANENT,
    )
