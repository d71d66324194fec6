"""Gives finished files their names in another user's directory: all or none, and overwriting only files of ours.

The directory is opened once and judged by the open directory, so renaming it or a folder above it has no effect. Each
file has a hidden draft name until all are complete; a note in the job's folder then lists them with inode, size, time
and digest. The next attempt of a killed job gives the rest of these files their names, and leaves the others as they
are; if one of them is missing, it removes these files and no others. With `overwrite`, the files of an earlier job are
kept under hidden names until the new ones have theirs. If the job is killed and never retried, the submitter's next job
there brings them back, or the daemon does (`leftovers.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.destination import make_output, output_of, share, share_in_team
from hyper2kvmd.host.files import sha256_of, write_durably
from hyper2kvmd.host.leftovers import ASIDE_END, DRAFT_END, Whose, contains, hold, rename_back, tidy
from hyper2kvmd.host.placed import is_ours, keep_for_next_attempt, mark, mark_draft, why_not_ours
from hyper2kvmd.host.workspace import signals_held
from hyper2kvmd.model.asked import DISKS_MAX
from hyper2kvmd.model.orders import Order

MODE = 0o640
DRAFT, ASIDE = f".{DRAFT_END}", f".{ASIDE_END}"
"""The ends of the hidden names of files that are not complete, and of files that are replaced."""
ATTEMPTS = 3
"""Another job that tidies the directory may have its lock, and give a file that was set aside its name back."""
ONLY_OURS = "`overwrite: true` replaces unchanged results of an earlier job, and nothing else"


class Placing:
    """One set of names in the output directory. Leaving the block gives them to the drafts; an exception removes these.

    If `earlier` is set, the drafts are those of an earlier attempt, unless the block calls `start_over`.

    Names are hard links, which fail rather than overwrite. The first file gets its name last. With `overwrite`, a file
    that an earlier job placed first loses its name, and gets it back after an exception.
    Raises MigrationFailed (`output-exists`), OSError, and Unsafe as `output_of`.
    """

    def __init__(self, order: Order, note: Path) -> None:
        self._order, self._note = order, note
        self._drafts: list[str] = []
        self._files: dict[str, int] = {}
        self._placed: list[str] = []
        self._replaced: list[str] = []
        self._digests: dict[str, str] = {}
        self.product = ""
        """What the caller wants to be told as `earlier`."""
        self.earlier: str | None = None
        """The `product` of an earlier attempt, if all its files are there, under their names or as drafts."""
        self.unreadable: list[str] = []
        """Names of files that the submitter cannot read: the file system has no ACLs."""

    def __enter__(self) -> Placing:
        with ExitStack() as stack:
            make_output(self._order)
            self._directory = stack.enter_context(output_of(self._order))
            self._opened = stack
            if not self._resume():
                self.start_over()
            self._bring_back()
            tidy(self._directory, Whose(os.geteuid(), self._order.submitter_uid))
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._opened:
            if error is not None and self.earlier is not None:
                return  # the next attempt takes them over
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
                self._restore(self._replaced)
                self._note.unlink(missing_ok=True)
                raise
            if error is not None:
                self._note.unlink(missing_ok=True)
                return
            self._remove(map(self._aside, self._replaced))
            self._remove_left_behind()

    def link(self, name: str, path: Path) -> int:
        """Add a file of the job's own folder under `name`; returns it, open for reading.

        Raises OSError: EXDEV for a file on another file system.
        """
        handle = self._keep(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        self._hold(handle)
        os.link(path, self._draft(name), dst_dir_fd=self._directory, follow_symlinks=False)
        return self._file(name, handle)

    def create(self, name: str) -> int:
        """Add a new file under `name`; returns it, open for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = self._keep(os.open(self._draft(name), flags, MODE, dir_fd=self._directory))
        self._hold(handle)
        os.fchmod(handle, MODE)
        return self._file(name, handle)

    def write(self, name: str, text: str) -> Path:
        """Add a small file; returns its later path."""
        self.know_digest(name, hashlib.sha256(text.encode()).hexdigest())
        with os.fdopen(self.create(name), "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return self._order.output_dir / name

    def holds(self, name: str, text: str) -> bool:
        """Whether file `name` contains exactly `text`: from an earlier attempt whose folder and note are gone."""
        wanted = text.encode()
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = self._keep(os.open(name, flags, dir_fd=self._directory))
            return os.pread(handle, len(wanted) + 1, 0) == wanted
        return False

    def write_all(self, texts: Mapping[str, str]) -> None:
        """Add small files. Those of an earlier attempt stay if they are the same, else they are removed."""
        self.product = hashlib.sha256(json.dumps(dict(texts)).encode()).hexdigest()
        if self.earlier == self.product:
            return
        self.start_over()
        for name, text in texts.items():
            if not self.holds(name, text):
                self.write(name, text)

    def know_digest(self, name: str, digest: str) -> None:
        """The SHA-256 of an added file: with it, the next attempt recognises the file."""
        self._digests[name] = digest

    def _keep(self, handle: int) -> int:
        self._opened.callback(os.close, handle)
        return handle

    def _hold(self, handle: int) -> None:
        """Show that a draft is ours, and in use."""
        hold(handle)
        mark_draft(handle, self._order)

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
        return f".{self._order.job_id}{DRAFT}"

    def _place(self) -> None:
        self._lock(fcntl.LOCK_SH)
        if self._files and self.earlier is None:
            os.fsync(self._directory)  # what the note lists is there
            self._write_note()
            for handle in self._files.values() if self._order.submitter is not None else ():
                keep_for_next_attempt(handle)  # a one-shot run has no next attempt
        for name, handle in reversed(self._files.items()):
            if not self._is_placed(name, handle):
                self._name(name, handle)
            self._placed.append(name)
        os.fsync(self._directory)

    def _name(self, name: str, handle: int) -> None:
        mark(handle, self._order)
        for _ in range(ATTEMPTS):
            if self._order.migration.overwrite:
                self._set_aside(name)
            with suppress(FileExistsError):
                return os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=self._directory, follow_symlinks=True)
        raise MigrationFailed(
            "output-exists",
            f"{self._order.output_dir / name} {self._why_taken(name)}",
            hint=f"Move it away, then retry: {ONLY_OURS}",
        )

    def _is_placed(self, name: str, handle: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(handle), self._stat(name))
        return False

    def _why_taken(self, name: str) -> str:
        if self._order.migration.overwrite:
            return why_not_ours(self._directory, name, self._order)
        return "appeared during the migration"

    def _set_aside(self, name: str) -> None:
        """Give the file of an earlier job a hidden name, under which it is examined again: no other can replace it."""
        if not is_ours(self._directory, name, self._order):
            return
        os.rename(name, self._aside(name), src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._replaced.append(name)
        if not is_ours(self._directory, self._aside(name), self._order):
            self._restore([name])

    def _restore(self, names: Iterable[str]) -> None:
        """Give files their names back, if no other file has these."""
        for name in names:
            rename_back(self._directory, self._aside(name), name)

    def _aside(self, name: str) -> str:
        return f".{name}.{self._order.job_id}{ASIDE}"

    def _write_note(self) -> None:
        files = {name: [*_identity(os.fstat(handle)), self._digests.get(name)] for name, handle in self._files.items()}
        write_durably(self._note, json.dumps({"files": files, "product": self.product}))

    def _noted(self) -> tuple[dict[str, list[Any]], str | None]:
        """The files in the note of an earlier attempt, and its product; an earlier version has only noted the files."""
        try:
            noted = json.loads(self._note.read_text())
        except (FileNotFoundError, ValueError):  # an incomplete note was written before any file was placed
            return {}, None
        if isinstance(noted.get("files"), dict):
            return noted["files"], noted["product"]
        return noted, None

    def _resume(self) -> bool:
        """Take over the files of an earlier attempt, if all of them are there and unchanged."""
        files, product = self._noted()
        found = {name: self._found(name, wanted) for name, wanted in files.items()} if product is not None else {}
        if not found or None in found.values():
            return False
        self._files = {name: handle for name, handle in found.items() if handle is not None}
        self._drafts = self._hidden(self._ending)
        self._replaced = [name for name in files if contains(self._directory, self._aside(name))]
        self.earlier = product
        return True

    def _found(self, name: str, wanted: list[Any]) -> int | None:
        """A noted file, open and held; None if it is neither under its name nor a draft, or was changed."""
        for one in (name, f".{name}{self._ending}"):
            with suppress(OSError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                handle = self._keep(os.open(one, flags, dir_fd=self._directory))
                facts, identity, digest = os.fstat(handle), wanted[:-1], wanted[-1]
                ours = facts.st_uid == os.geteuid() and _identity(facts) == identity
                if ours and (digest is None or sha256_of(handle) == digest):
                    hold(handle)
                    return handle
        return None

    def start_over(self) -> None:
        """Remove the files of an earlier attempt: its drafts, by their names, and the files in its note.

        Another host with its own queue may publish here under the same job number, but for another machine.
        """
        self._files, self._replaced, self.earlier = {}, [], None
        self._drafts = []
        self._remove(self._hidden(self._ending))
        noted, _ = self._noted()
        ours = (name for name in noted if contains(self._directory, name) and self._is_noted(name, noted[name]))
        self._remove(ours)
        self._restore(noted)

    def _is_noted(self, name: str, wanted: list[Any]) -> bool:
        found = _identity(self._stat(name))
        return found == wanted[: len(found)]

    def _hidden(self, ending: str) -> list[str]:
        """Hidden names for files of this machine."""
        asked = self._order.migration
        beginnings = tuple(f".{name}." for name in (asked.vm_name, *asked.output_names(DISKS_MAX)))
        with os.scandir(self._directory) as entries:
            return [one.name for one in entries if one.name.startswith(beginnings) and one.name.endswith(ending)]

    def _bring_back(self) -> None:
        """Give files that killed jobs of this machine set aside their names, if these are free."""
        if self._lock(fcntl.LOCK_EX):
            for aside, name in self._left_behind():
                rename_back(self._directory, aside, name)
            self._lock(fcntl.LOCK_UN)

    def _remove_left_behind(self) -> None:
        """Remove those that have successors now."""
        if self._lock(fcntl.LOCK_EX):
            self._remove(aside for aside, name in self._left_behind() if contains(self._directory, name))

    def _left_behind(self) -> list[tuple[str, str]]:
        """Hidden names and names of files that other jobs have set aside. The note covers those of this job."""
        left = []
        for aside in self._hidden(ASIDE):
            name, _, job_id = aside[1:].removesuffix(ASIDE).rpartition(".")
            if job_id != self._order.job_id and is_ours(self._directory, aside, self._order):
                left.append((aside, name))
        return left

    def _lock(self, operation: int) -> bool:
        """Lock the directory: shared while files get their names, exclusive while those of other jobs are touched.

        Never waits: others can open the directory, and would block the job. False without the lock.
        """
        try:
            fcntl.flock(self._directory, operation | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._directory, follow_symlinks=False)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)


def _identity(facts: os.stat_result) -> list[int]:
    """Unchanged by a restart of the host, which may change device numbers."""
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]
