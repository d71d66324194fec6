"""The spool: files dropped into `incoming/` become jobs, and end in `done/`, `failed/` or `rejected/`.

A scan, about once a second, is the truth. There is no inotify: it says nothing of remote writers on NFS, tells of
files before they are whole, and loses events when it matters, so a scan would be needed all the same.

A file is claimed by a rename into `active/` under a name of its own, which its job carries: whatever moment the
daemon dies at, the next scan finds either a file without a job, and enters it, or a job that is over whose file is
still to be moved, and moves it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
import signal
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hyper2kvmd import spec
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.quota import Look, Quota, in_turn
from hyper2kvmd.daemon.wire import MAX_TEXT, Rejection
from hyper2kvmd.errors import BrokenInstallation, Failure, InvalidInput
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import SEARCH, WRITE, Person
from hyper2kvmd.jobs.store import Origin, Store
from hyper2kvmd.model.jobs import Job, Problem, State
from hyper2kvmd.progress import problem

log = logging.getLogger(__name__)
trouble = logging.getLogger(f"{__name__}.trouble")
"""For what a submitter can cause again and again: journal.LIMITED."""

FOLDERS = ("incoming", "active", "rejected", "done", "failed")
SUFFIXES = (".yaml", ".yml")
MAX_NAME = 180
"""Bytes of a file name that are kept: room for our own additions within the 255 of a file system."""
PLACES = {
    State.SUCCEEDED: "done",
    State.FAILED: "failed",
    State.CANCELLED: "failed",
    State.REJECTED: "rejected",
}


def content_key(data: bytes, submitter: str) -> str:
    """The same for the same text of the same person: nobody's copy may pass for another's own submission."""
    return hashlib.sha256(submitter.encode() + b"\0" + data).hexdigest()


def prepare(spool_dir: Path) -> None:
    """Make the folders that are missing. Raises BrokenInstallation (`spool-unusable`, `spool-split`)."""
    try:
        for name in FOLDERS:
            folder = spool_dir / name
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o770 if name == "incoming" else 0o750)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "this user may not write there", str(folder))
        devices = {(spool_dir / name).stat().st_dev for name in FOLDERS}
    except OSError as error:
        raise BrokenInstallation(
            "spool-unusable",
            f"the spool directory {error.filename or spool_dir} cannot be used: {error.strerror}",
            hint="create it for the daemon's user, or name another one as spool_dir",
        ) from error
    if len(devices) != 1:
        raise BrokenInstallation(
            "spool-split",
            f"the folders of {spool_dir} are on different file systems",
            hint="keep them on one, so that a file changes places by a rename",
        )


class Spool:
    def __init__(self, spool_dir: Path, store: Store, metrics: Metrics) -> None:
        self._dir, self._store, self._metrics = spool_dir, store, metrics
        self._incoming: dict[str, Look] = {}
        self._active: dict[str, Look] = {}
        self._entered: set[str] = set()
        self._complaints: dict[str, str] = {}
        self._quota = Quota(store)

    def scan(self) -> int:
        """Look at everything once; returns how many files became jobs.

        A file that cannot be read, moved or understood is a matter of that file. Raises only what the store does.
        """
        self._claim_settled()
        entered = self._enter_claimed()
        for job, path in self._store.misplaced():
            self._put_away(job, self._dir / path)
        return entered

    # ------------------------------------------------------------ from incoming/ to active/

    def _claim_settled(self) -> None:
        """Take what looks the same as at the last scan and is open for writing nowhere, one of each owner in turn."""
        folder = self._dir / "incoming"
        before, self._incoming = self._incoming, self._looks(folder, filter(_is_submission, self._names(folder)))
        settled = {name: look for name, look in self._incoming.items() if before.get(name) == look}
        if not settled:
            return
        self._complaints = {name: fact for name, fact in self._complaints.items() if name in self._incoming}
        self._quota.begin_scan()
        for name in in_turn(settled, _original):
            if self._quota.allows(settled[name].uid):
                with self._complaining(name):
                    self._claim(folder / name, settled[name])

    def _claim(self, path: Path, look: Look) -> None:
        if Look.at(path) != look or _being_written(path):
            return
        claim = self._dir / "active" / f"{secrets.token_hex(6)}.{_kept(path.name)}"
        self._quota.take(look.uid)  # a claim that is refused costs a scan no less
        path.rename(claim)
        del self._incoming[path.name]
        self._active[claim.name] = Look.at(claim)

    # ------------------------------------------------------------ from a file to a job

    def _enter_claimed(self) -> int:
        entered = 0
        folder = self._dir / "active"
        names = set(self._names(folder))
        self._entered &= names
        looks = self._looks(folder, names - self._entered)
        for claim in in_turn(looks, _original):
            with self._complaining(claim):
                if self._active.get(claim) != looks[claim] or _being_written(folder / claim):
                    self._active[claim] = looks[claim]
                    continue
                if self._store.spooled_as(claim) is None:
                    entered += self._enter(claim)
                self._entered.add(claim)
                self._active.pop(claim, None)
        return entered

    def _enter(self, claim: str) -> bool:
        """Make the file a job; returns whether it became one."""
        path = self._dir / "active" / claim
        name = _original(path.name)
        owner = Person.of(path.lstat().st_uid)
        origin = Origin(submitter=owner.name, uid=owner.uid, name=name, claim=claim, path=f"active/{claim}")
        key = ""
        try:
            data = self._asked_by(owner, path)
            key = content_key(data, owner.name)
            migration = spec.parse(_text(data), base=None, default_name=Path(name).stem)
        except Failure as failure:
            problems = failure.problems if isinstance(failure, spec.Rejected) else (problem(failure),)
            job = self._store.record_rejected(problems, vm_name=Path(name).stem, content_key=key, origin=origin)
            JobLog(log, job.id).warning("%s rejected: %s", name, failure)
            self._metrics.rejected(problems[0].code)
            self._metrics.ended(State.REJECTED, problems)
            return False
        submitted = self._store.submit(migration, content_key=key, origin=origin)
        if submitted.new:
            JobLog(log, submitted.job.id).info("%s submitted by %s", name, origin.submitter)
            return True
        duplicate = Problem(
            code="duplicate",
            message=f"{name} has the same content as job {submitted.job.id}, which is {submitted.job.state.value}",
            hint="wait for that job; drop the file again once it has ended to run it once more",
            kind="permanent",
        )
        JobLog(log, submitted.job.id).warning("%s is the same again, rejected", name)
        self._metrics.rejected(duplicate.code)
        rejection = Rejection(file=name, job_id=submitted.job.id, problems=(duplicate,))
        self._reject(path, name, submitted.job.id, rejection)
        return False

    def _asked_by(self, owner: Person, path: Path) -> bytes:
        """What `owner` asks for: nobody else may have written it, or put it there for them. Raises InvalidInput.

        The service's own user asks for nothing here: a file of its own may be the result of somebody's job.
        """
        fact = f"belongs to {owner.name}, the user that this service runs as"
        remedy = "drop it as the person who wants the migration, or use h2kvmctl submit"
        _require(owner.uid != os.geteuid() or owner.uid == 0, "spool-own-file", path, fact, remedy)
        data = _read(path, owner)
        theirs = owner.may(WRITE | SEARCH, self._dir / "incoming")
        fact = f"belongs to {owner.name}, who may not drop files here"
        _require(theirs, "spool-not-theirs", path, fact, "drop a copy of your own (cp, not mv)")
        return data

    # ------------------------------------------------------------ at the end

    def _put_away(self, job: Job, path: Path) -> None:
        name = job.spool_name or path.name
        with self._complaining(path.name):
            try:
                if job.state is State.REJECTED:
                    rejection = Rejection(file=name, job_id=job.id, problems=job.problems)
                    target = self._reject(path, name, job.id, rejection)
                else:
                    target = self._free(PLACES[job.state], name, job.id)
                    path.rename(target)
            except FileNotFoundError:
                JobLog(log, job.id).warning("its spool file %s is gone", path.name)
                self._store.move_spool_file(job.id, None)
            else:
                self._store.move_spool_file(job.id, str(target.relative_to(self._dir)))

    def _reject(self, path: Path, name: str, job_id: int, rejection: Rejection) -> Path:
        path.lstat()
        target = self._free("rejected", name, job_id)
        draft = target.with_name(f".{target.name}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(rejection.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target.with_name(f"{target.name}.reason.json"))
        path.rename(target)
        return target

    def _free(self, folder: str, name: str, job_id: int) -> Path:
        """`name` in `folder`, or with the job's number before the suffix when that is taken."""
        path = Path(name)
        numbered = (f"{path.stem}.{job_id}.{count}{path.suffix}" for count in itertools.count(2))
        for candidate in itertools.chain((name, f"{path.stem}.{job_id}{path.suffix}"), numbered):
            if not os.path.lexists(self._dir / folder / candidate):
                return self._dir / folder / candidate
        raise AssertionError("there are infinitely many numbers")

    # ------------------------------------------------------------ trouble

    def _looks(self, folder: Path, names: Iterable[str]) -> dict[str, Look]:
        """What is still there of `names`."""
        looks: dict[str, Look] = {}
        for name in names:
            with suppress(OSError):  # what cannot be looked at is gone, or shows when the folder is listed
                looks[name] = Look.at(folder / name)
        return looks

    def _names(self, folder: Path) -> list[str]:
        with self._complaining(folder.name):
            return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths, are what is compared
        return []

    @contextmanager
    def _complaining(self, name: str) -> Iterator[None]:
        """One file's trouble is logged, once, and is no other file's."""
        try:
            yield
        except OSError as error:
            if self._complaints.get(name) != error.strerror:
                self._complaints[name] = str(error.strerror)
                trouble.error("spool: %s: %s; it is tried again", _kept(name), error.strerror)
        else:
            self._complaints.pop(name, None)


def _is_submission(name: str) -> bool:
    return not name.startswith(".") and not name.endswith("~") and Path(name).suffix.lower() in SUFFIXES


def _kept(name: str) -> str:
    """The file name as we keep it: printable, valid UTF-8, and short enough for our additions."""
    text = name.encode(errors="surrogateescape").decode(errors="replace")
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    path = Path(text)
    room = MAX_NAME - len(path.suffix.encode())
    return path.stem.encode()[:room].decode(errors="ignore") + path.suffix


def _being_written(path: Path) -> bool:
    """Whether some process has the file open for writing.

    The kernel grants a read lease only when none has. It answers for files of our own (or with CAP_LEASE) alone;
    for others the settle rule has to do.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # a broken lease's SIGIO would kill us; this one is ignored
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _read(path: Path, owner: Person) -> bytes:
    """The whole of a small regular file that has one name, and that only its owner may write. Raises InvalidInput."""
    _require(stat.S_ISREG(path.lstat().st_mode), "spool-not-a-file", path, "is not a regular file", "drop a plain file")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise InvalidInput(
            "spool-unreadable",
            f"{_original(path.name)} may not be read by the daemon",
            hint="chmod o+r it, or drop a copy (cp, not mv): that is readable for the daemon's group",
        ) from error
    try:
        facts = os.fstat(handle)
        _require(stat.S_ISREG(facts.st_mode), "spool-not-a-file", path, "is not a regular file", "drop a plain file")
        _require(facts.st_nlink == 1, "spool-hard-linked", path, "has a second name", "drop a copy of the file instead")
        shared = facts.st_mode & stat.S_IWOTH or (
            facts.st_mode & stat.S_IWGRP and (acl.entries(handle) or not owner.alone_in(facts.st_gid))
        )
        _require(not shared, "spool-shared", path, "may be written by others", "chmod go-w it, then drop it again")
        size = f"has {facts.st_size} bytes, more than {MAX_TEXT}"
        _require(facts.st_size <= MAX_TEXT, "spool-too-large", path, size, "a migration needs a few hundred bytes")
        data = b""
        while chunk := os.read(handle, MAX_TEXT + 1 - len(data)):
            data += chunk
        return data[:MAX_TEXT]
    finally:
        os.close(handle)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "spool-not-utf8",
            f"the file is not UTF-8: byte {error.start} is {data[error.start]:#04x}",
            hint="save the file as UTF-8",
        ) from error


def _require(condition: bool, code: str, path: Path, fact: str, hint: str) -> None:
    if not condition:
        raise InvalidInput(code, f"{_original(path.name)} {fact}", hint=hint)


def _original(name: str) -> str:
    """The name that a claimed file was dropped under."""
    return re.sub("^[0-9a-f]{12}[.]", "", name)
