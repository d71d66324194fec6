"""Finds the files that a .vmx names: it was written on another host, whose paths are not those of this one."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hyper2kvmd.disk.file_names import last_part, same_name
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.text_encoding import is_decoded
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.yaml_source import shown

MAX_NAMES = 20_000
"""Names in the directory of the .vmx that are looked at."""
LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Bytes, as Linux counts them."""
MISSING = "source-missing"
VOLUME = re.compile(r"/vmfs/volumes/([^/]+)/(.+)")
WINDOWS = re.compile(r"[A-Za-z]:[\\/].*|\\\\.*")
"""An absolute path of Windows: with a drive letter, or on another computer."""


@dataclass
class NamedFiles:
    """Finds files by the rights in `mandate`, which contains the .vmx as their namer."""

    vmx: Path
    mandate: Mandate
    datastores: Mapping[str, Path]
    concerns: list[Concern] = field(default_factory=list)
    """About files that were found by their names only."""
    used: set[str] = field(default_factory=set)
    """Datastores that a path was looked for in."""
    names: tuple[str, ...] = ()
    """In the directory of the .vmx, if it can be listed."""

    def __post_init__(self) -> None:
        self.names = self.names_in(self.vmx.parent)

    def names_in(self, folder: Path) -> tuple[str, ...]:
        """None of a folder that cannot be listed."""
        with suppress(OSError):
            return self.mandate.names_in(folder, MAX_NAMES)
        return ()

    def find(self, device: str, written: str) -> Path:
        """The file that `written` means: in its datastore's directory, else where it says, else beside the .vmx.

        Raises MigrationFailed (`vmx-disk-missing`, `vmx-disk-unclear`).
        """
        _require_path(self.vmx, device, written)
        if WINDOWS.fullmatch(written):
            return self._beside(device, written)
        if not written.startswith("/"):
            path = self.vmx.parent / (written if "/" in written else written.replace("\\", "/"))
            return self._beside(device, written) if self._failure(path) == MISSING else path
        path = Path(posixpath.normpath(written))
        volume = VOLUME.fullmatch(str(path))
        if volume is not None and volume[1] in self.datastores:
            self.used.add(volume[1])
            return self._in_datastore(device, written, self.datastores[volume[1]], volume[2])
        failure = self._failure(path)
        is_elsewhere = failure == MISSING or (failure is not None and self._names_like(last_part(written)))
        return self._beside(device, written) if is_elsewhere else path

    def _in_datastore(self, device: str, written: str, folder: Path, name: str) -> Path:
        path = folder / name
        if self._failure(path) == MISSING:
            fact = f"is not there: {path} does not exist"
            raise _missing(self.vmx, device, written, fact, f"Correct datastore_map, or copy the file to {path.parent}")
        return path

    def unused(self) -> Iterator[Concern]:
        """A concern if entries of `datastore_map` had no effect on the files found so far."""
        names = [shown(name) for name in self.datastores if name not in self.used]
        if names:
            yield Concern(
                code="datastore-unknown",
                message=f"{self.vmx}: no disk is on {', '.join(names)}, which datastore_map has",
                hint="Spell the names in datastore_map as the .vmx does, or remove them",
                level="information",
            )

    def _names_like(self, name: str) -> list[str]:
        """The names beside the .vmx that can mean this file: the same one, else those in other case."""
        return [one for one in self.names if one == name] or [one for one in self.names if same_name(one, name)]

    def _beside(self, device: str, written: str) -> Path:
        name = last_part(written)
        found = self._names_like(name)
        if len(found) > 1:
            raise MigrationFailed(
                "vmx-disk-unclear",
                f"{self.vmx}: {device} names {shown(written)}, and {' and '.join(map(shown, found[:2]))} are beside it",
                hint="Keep only the file of this machine in the directory, or spell its name in the .vmx as it is",
            )
        if not found and self._failure(self.vmx.with_name(name)) == MISSING:
            fact = f"is not on this host: {self.vmx.parent} has no file {shown(name)}"
            raise _missing(self.vmx, device, written, fact, self._how_to_map(written))
        path = self.vmx.with_name(found[0] if found else name)
        self.concerns.append(
            Concern(
                code="disk-found-by-name",
                message=f"{self.vmx}: {device} names {shown(written)}, and {path} is used, which has the same name",
                hint="Check that it is this machine's disk",
            )
        )
        return path

    def _failure(self, path: Path) -> str | None:
        """The code of the failure to open it; None if it can be opened."""
        try:
            os.close(open_file(path, self.mandate).fd)
        except Failure as failure:
            return failure.code
        return None

    def _how_to_map(self, written: str) -> str:
        volume = VOLUME.fullmatch(posixpath.normpath(written))
        if volume is None:
            return f"Copy the disk, with all of its files, to {self.vmx.parent}"
        entry = f"{shown(volume[1])}: /directory"
        where = f"`{entry}` to datastore_map" if self.datastores else f"`datastore_map: {{{entry}}}`"
        return f"Add {where}, with the directory that has this datastore's files, or copy the disk to {self.vmx.parent}"


def _require_path(vmx: Path, device: str, written: str) -> None:
    parts = re.split(r"[/\\]", written)
    if not is_decoded(written):
        fact, hint = "is not valid in the encoding of the .vmx", "Correct `.encoding` in the .vmx"
    elif not written.isprintable():
        fact, hint = "has characters that cannot be printed", "Correct the name in the .vmx"
    elif len(written.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        fact, hint = "is longer than file systems allow", "Correct the name in the .vmx"
    elif parts[-1] in ("", ".", ".."):
        fact, hint = "is not the name of a file", "Correct the name in the .vmx"
    else:
        return
    raise _missing(vmx, device, written, fact, hint)


def _missing(vmx: Path, device: str, written: str, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("vmx-disk-missing", f"{vmx}: the disk {shown(written)} of {device} {fact}", hint=hint)
