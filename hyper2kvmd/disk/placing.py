"""Owns how finished files get their names in a directory of somebody else's: all of them or none, over nobody's.

Each file is made under a hidden draft name there; only when all are whole do they get their names, by hard links,
which fail rather than overwrite. A note in the job's own folder says beforehand which files these are, so that the
next attempt of a job that was killed half way takes them back, and nobody else's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.workspace import signals_held

NOTE = "placing.json"
MODE = 0o640


class Placing:
    """One set of names in `directory`; leaving the block gives the drafts their names, an exception removes them.

    Raises MigrationFailed (`output-exists`) and OSError.
    """

    def __init__(self, directory: Path, job_id: str, own_folder: Path) -> None:
        self._directory, self._job_id, self._note = directory, job_id, own_folder / NOTE
        self._names: list[str] = []
        self._placed: list[Path] = []

    def __enter__(self) -> Placing:
        self._take_back()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            with signals_held():
                try:
                    if error is None:
                        self._place()
                finally:
                    self._remove([self._draft(name) for name in self._names])
                    sync(self._directory)
        except BaseException:
            self._remove(self._placed)
            raise

    def draft(self, name: str) -> Path:
        """Where to make the file that is to be called `name`; the first that is asked for gets its name last."""
        self._names.append(name)
        return self._draft(name)

    def write(self, name: str, text: str) -> Path:
        """A small file; returns the path that it will have."""
        handle = os.open(self.draft(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, MODE)
            file.write(text)
            file.flush()
            os.fsync(handle)
        return self._directory / name

    def _draft(self, name: str) -> Path:
        return self._directory / f".{name}.{self._job_id}.partial"

    def _place(self) -> None:
        self._write_note({name: _identity(self._draft(name)) for name in self._names})
        for name in reversed(self._names):
            final = self._directory / name
            try:
                os.link(self._draft(name), final)
            except FileExistsError as error:
                raise MigrationFailed(
                    "output-exists",
                    f"{final} appeared during the migration",
                    hint="move it away and retry: nothing is ever overwritten",
                    kind=Kind.OPERATOR,
                ) from error
            self._placed.append(final)
        sync(self._directory)

    def _write_note(self, names: dict[str, list[int]]) -> None:
        with self._note.open("w") as file:
            json.dump(names, file)
            file.flush()
            os.fsync(file.fileno())

    def _take_back(self) -> None:
        for leftover in self._directory.glob(f".*.{self._job_id}.partial"):
            leftover.unlink()
        try:
            noted = json.loads(self._note.read_text())
        except (FileNotFoundError, ValueError):  # a note that is not whole was written before anything was placed
            return
        for name, identity in noted.items():
            final = self._directory / name
            if os.path.lexists(final) and _identity(final) == identity:
                final.unlink()

    @staticmethod
    def _remove(paths: list[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def _identity(path: Path) -> list[int]:
    """The same before and after a restart of the host, when device numbers may change."""
    facts = path.lstat()
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]


def sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
