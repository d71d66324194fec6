"""Owns how finished files get their names in a directory of somebody else's: all of them or none, over nobody's.

The directory is opened once, and judged as opened: who may rename it, or a folder above it, cannot lead us elsewhere.
Each file is made under a hidden draft name there, and stays open; only when all are whole do they get their names, by
hard links to what is open, which fail rather than overwrite. A note in the job's own folder says beforehand which files
these are, so that the next attempt of a job that was killed half way takes them back, and nobody else's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.destination import make_output, output_of, share, share_in_team
from hyper2kvmd.host.workspace import signals_held
from hyper2kvmd.model.orders import Order

MODE = 0o640


def names_in(directory: int) -> frozenset[str]:
    with os.scandir(directory) as entries:
        return frozenset(entry.name for entry in entries)


class Placing:
    """One set of names in the output directory; leaving the block gives them to the drafts, an exception removes those.

    What is made first gets its name last. Raises MigrationFailed (`output-exists`), OSError, and Unsafe as `output_of`.
    """

    def __init__(self, order: Order, note: Path) -> None:
        self._order, self._note = order, note
        self._drafts: list[str] = []
        self._files: dict[str, int] = {}
        self._placed: list[str] = []
        self.unreadable: list[str] = []
        """Names of files that the submitter cannot read: their file system has no ACLs."""

    def __enter__(self) -> Placing:
        with ExitStack() as stack:
            make_output(self._order)
            self._directory = stack.enter_context(output_of(self._order))
            self._take_back()
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                with signals_held():
                    try:
                        if error is None:
                            self._place()
                    finally:
                        self._remove(self._drafts)
                        os.fsync(self._directory)
            except BaseException:
                self._remove(self._placed)
                raise

    def link(self, name: str, path: Path) -> int:
        """A file of the job's own folder is to be called `name`; returns it, open for reading.

        Raises OSError: EXDEV for a file on another file system.
        """
        handle = self._keep(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        os.link(path, self._draft(name), dst_dir_fd=self._directory, follow_symlinks=False)
        return self._file(name, handle)

    def create(self, name: str) -> int:
        """Returns a new file that is to be called `name`, open for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = self._keep(os.open(self._draft(name), flags, MODE, dir_fd=self._directory))
        os.fchmod(handle, MODE)
        return self._file(name, handle)

    def write(self, name: str, text: str) -> Path:
        """A small file; returns the path that it will have."""
        with os.fdopen(self.create(name), "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return self._order.output_dir / name

    def holds(self, name: str, text: str) -> bool:
        """Whether a file of that name says just that: of an earlier attempt whose folder, and note, are gone."""
        wanted = text.encode()
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = self._keep(os.open(name, flags, dir_fd=self._directory))
            return os.pread(handle, len(wanted) + 1, 0) == wanted
        return False

    def _keep(self, handle: int) -> int:
        self._opened.callback(os.close, handle)
        return handle

    def _file(self, name: str, handle: int) -> int:
        self._files[name] = handle
        share_in_team(handle, self._directory)
        if not share(self._order, handle):
            self.unreadable.append(name)
        return handle

    def _draft(self, name: str) -> str:
        draft = f".{name}{self._ending}"
        self._drafts.append(draft)
        return draft

    @property
    def _ending(self) -> str:
        return f".{self._order.job_id}.partial"

    def _place(self) -> None:
        self._write_note({name: _identity(os.fstat(handle)) for name, handle in self._files.items()})
        for name, handle in reversed(self._files.items()):
            try:
                os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=self._directory, follow_symlinks=True)
            except FileExistsError as error:
                raise MigrationFailed(
                    "output-exists",
                    f"{self._order.output_dir / name} appeared during the migration",
                    hint="move it away and retry: nothing is ever overwritten",
                    kind=Kind.OPERATOR,
                ) from error
            self._placed.append(name)
        os.fsync(self._directory)

    def _write_note(self, names: dict[str, list[int]]) -> None:
        with self._note.open("w") as file:
            json.dump(names, file)
            file.flush()
            os.fsync(file.fileno())

    def _take_back(self) -> None:
        """Remove what an earlier attempt left: its drafts, by their names, and what it had noted to place.

        Another host with a queue of its own may publish here under the same job number; its machine is another one.
        """
        names = names_in(self._directory)
        asked = self._order.migration
        beginnings = tuple(f".{name}." for name in (asked.vm_name, *asked.output_names))
        self._remove(name for name in names if name.startswith(beginnings) and name.endswith(self._ending))
        try:
            noted = json.loads(self._note.read_text())
        except (FileNotFoundError, ValueError):  # a note that is not whole was written before anything was placed
            return
        ours = (name for name in noted if name in names and self._identity(name) == noted[name])
        self._remove(ours)

    def _identity(self, name: str) -> list[int]:
        return _identity(os.stat(name, dir_fd=self._directory, follow_symlinks=False))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)


def _identity(facts: os.stat_result) -> list[int]:
    """The same before and after a restart of the host, when device numbers may change."""
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]
