"""Output directories: found or made, opened once, and judged by the open directory.

The service owns the files that it creates, so a submitter's choice of directory could misuse its rights: a file in the
spool would become its migration, one in its home its configuration. Allowed are therefore the configured directory and
those in which the submitter can create files, never the service's own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, Unsafe
from hyper2kvmd.host import acl
from hyper2kvmd.host.mandate import require_below
from hyper2kvmd.host.person import (
    READ,
    SEARCH,
    WRITE,
    Person,
    lineage,
    name_of,
    strangers_may_write,
)
from hyper2kvmd.host.way import way_to
from hyper2kvmd.host.workspace import way_to_write
from hyper2kvmd.model.orders import Bounds, Order

DIRECTORY_MODE = 0o751
"""QEMU's user passes through it to the images."""
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ATTEMPTS = 16
"""Several jobs may create the same directory at once."""
Identity = tuple[int, int]
"""Device and inode."""


@contextmanager
def output_of(order: Order) -> Iterator[int]:
    """The output directory of the order, open and judged.

    Raises OSError, or Unsafe (`output-moved`, `path-not-allowed`, `output-private`, `submitter-may-not-write`).
    """
    with nearest_output(order) as nearest:
        if nearest.missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(order.output_dir))
        yield nearest.handle


@dataclass(frozen=True)
class Nearest:
    """The output directory, or the nearest directory above it that exists; open."""

    handle: int
    missing: tuple[str, ...]
    """The directories below it that are to be created."""


@dataclass(frozen=True)
class DirectoryIdentity:
    """A directory by its identity; a missing one by that of the nearest existing one above it."""

    nearest: Identity
    missing: tuple[str, ...] = ()


@contextmanager
def _nearest(directory: Path, person: Person | None = None) -> Iterator[Nearest]:
    with way_to(directory, person) as way:
        handle = os.open(".", OPEN_DIRECTORY, dir_fd=way.folder)
        try:
            yield Nearest(handle, way.rest)
        finally:
            os.close(handle)


def real_output_dir(order: Order) -> Path:
    """The output directory without links, followed with the submitter's rights; the configured one with our own.

    Raises OSError as `way_to` does.
    """
    with way_to(order.output_dir, _followed_as(order)) as way:
        return way.real


@contextmanager
def nearest_output(order: Order) -> Iterator[Nearest]:
    """Judge the output directory, which need not exist, and create nothing.

    Raises OSError, and Unsafe as `output_of` does.
    """
    with _nearest(order.output_dir, _followed_as(order)) as nearest:
        _require_allowed(order, nearest.handle, nearest.missing)
        yield nearest


def unusable(directory: Path, error: OSError) -> MigrationFailed:
    """Why the output directory cannot be used."""
    return MigrationFailed(
        "output-unwritable",
        f"the output directory {directory} cannot be used: {error.strerror}",
        hint=way_to_write(directory, error),
        kind=Kind.OPERATOR,
    )


def require_configured(bounds: Bounds) -> None:
    """Raise Unsafe (`output-private`) if the configured output directory is not valid for submitters' results.

    The same check as for a job, before any job. Raises OSError for a directory that cannot be opened.
    """
    if bounds.shared_output_dir is not None:
        directory = bounds.shared_output_dir.resolve()
        with _nearest(directory) as nearest:
            _require_apart(directory, nearest, bounds, bounds.outer_dirs)


def make_configured(directory: Path) -> None:
    """Create the configured output directory and its parents if missing, as a job does. Raises OSError."""
    with _nearest(directory) as nearest, ExitStack() as stack:
        handle = nearest.handle
        for name in nearest.missing:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=handle)
            handle = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            stack.callback(os.close, handle)
            os.fchmod(handle, DIRECTORY_MODE | os.fstat(handle).st_mode & stat.S_ISGID)


def make_output(order: Order) -> None:
    """Create the output directory and its parents if missing, so that the submitter can use them as well.

    Raises OSError, and Unsafe as `output_of` does, before anything is made.
    """
    for _ in range(ATTEMPTS):
        with suppress(FileExistsError):
            return _make_missing(order)
    raise OSError(errno.EBUSY, "directories appear and disappear there", str(order.output_dir))


def _make_missing(order: Order) -> None:
    """Raises FileExistsError for a directory that has appeared meanwhile: it must be judged as well."""
    with nearest_output(order) as nearest, ExitStack() as stack:
        handle = nearest.handle
        for name in nearest.missing:
            handle = _make_directory(handle, name, order)
            stack.callback(os.close, handle)


def require_unshared(order: Order) -> None:
    """Require that only root and this process's user can replace an image, which libvirt opens as root.

    A directory that a job creates is writable for its submitter. Raises OSError, or Unsafe (`output-shared`, and as
    `output_of` does).
    """
    with nearest_output(order) as nearest:
        given = bool(nearest.missing) and _made_for(order) is not None
        own = Person.of(os.geteuid())
        for number, folder in enumerate(lineage(nearest.handle), start=1 if nearest.missing else 0):
            facts = os.fstat(folder)
            safe = (number > 0 and facts.st_mode & stat.S_ISVTX) or not strangers_may_write(folder, own)
            if given or facts.st_uid not in (0, own.uid) or not safe:
                raise Unsafe(
                    "output-shared",
                    f"{order.output_dir}: libvirt_import needs a directory that only root and "
                    f"{own.name} can write to, but others can write to {name_of(folder)}",
                    hint="Remove output_dir, or set libvirt_import: false and define the domain yourself",
                )


def share(order: Order, handle: int) -> bool:
    """Let the submitter read an open file made for them; False if its file system has no ACLs."""
    person = _submitter(order)
    if person is None:
        return True
    with suppress(OSError):
        acl.grant(handle, acl.AclEntry(acl.USER, READ, person.uid))
    return person.may(READ, handle)


def share_in_team(handle: int, directory: int) -> None:
    """In a setgid directory, let the directory's group read an open file that was linked, not created, there.

    It gets that group, like a new file there, if this process may set it, else an ACL entry.
    """
    folder, facts = os.fstat(directory), os.fstat(handle)
    if not folder.st_mode & stat.S_ISGID or folder.st_gid == facts.st_gid:
        return
    try:
        os.fchown(handle, -1, folder.st_gid)
    except PermissionError:
        with suppress(OSError):
            acl.grant(handle, acl.AclEntry(acl.GROUP, READ, folder.st_gid))


# ---------------------------------------------------------------- whose directory it is


def _require_allowed(order: Order, handle: int, missing: tuple[str, ...] = ()) -> None:
    """Judge the open directory, or the one that results from creating the `missing` ones in it."""
    if name_of(handle).joinpath(*missing) != order.output_dir:
        raise Unsafe(
            "output-moved",
            f"{order.output_dir}: the output directory was moved or replaced during the migration",
            hint="Retry, and do not move the directory while a job runs",
        )
    require_below(order.output_dir, order.output_dir, order.bounds.output_dirs, "output")
    person = Person.who_submitted(order)
    if person is None:
        return
    bounds, nearest = order.bounds, Nearest(handle, missing)
    if _is_configured(order):
        _require_apart(order.output_dir, nearest, bounds, bounds.outer_dirs)
        return
    shared = () if bounds.shared_output_dir is None else (bounds.shared_output_dir,)
    _require_apart(order.output_dir, nearest, bounds, shared)
    if not _may_create(person, handle):
        raise Unsafe(
            "submitter-may-not-write",
            f"{order.output_dir}: {person.name or 'an unknown user'} (who submitted this job) cannot create files "
            "there: permission denied",
            hint="Use an output_dir of their own, or remove output_dir",
        )


def _is_configured(order: Order) -> bool:
    """Whether it is the configured directory, which has all submitters' results and is writable for none of them."""
    shared = order.bounds.shared_output_dir
    return shared is not None and order.output_dir in (shared, shared.resolve())


def _followed_as(order: Order) -> Person | None:
    """The person with whose rights the path is followed; None for this process's own."""
    return None if _is_configured(order) else Person.who_submitted(order)


def _require_apart(directory: Path, nearest: Nearest, bounds: Bounds, open_dirs: tuple[Path, ...]) -> None:
    """Raise Unsafe unless it is apart from the service's own directories; it may be below `open_dirs`.

    Compared by identity, not by name: a directory may be mounted in two places.
    """
    way = _way_up(nearest)
    private, permitted = [_way_of(one) for one in bounds.private_dirs], {_way_of(one)[0] for one in open_dirs}
    own = {one[0] for one in private}
    inner = next((number for number, place in enumerate(way) if place in own | permitted), None)
    inside = inner is not None and (way[inner] not in permitted or (inner == 0 and way[0] in own))
    if inside or way[0] in {place for one in private for place in one[1:]}:
        raise Unsafe(
            "output-private",
            f"{directory}: an output directory must not be, contain or lie in a directory of the service itself",
            hint="Use another output_dir, or remove the key. Only the configured output_dir may be in state_dir",
        )


def _way_of(directory: Path) -> tuple[DirectoryIdentity, ...]:
    """By name, because this user may not be able to open it."""
    real = directory.resolve()
    present = next(one for one in (real, *real.parents) if os.path.lexists(one))
    return _places((_identity(one.stat()) for one in (present, *present.parents)), real.relative_to(present).parts)


def _way_up(nearest: Nearest) -> tuple[DirectoryIdentity, ...]:
    """The directory and every one above it, from the kernel."""
    return _places((_identity(os.fstat(folder)) for folder in lineage(nearest.handle)), nearest.missing)


def _places(existing: Iterable[Identity], missing: tuple[str, ...]) -> tuple[DirectoryIdentity, ...]:
    upward = tuple(existing)
    below = (DirectoryIdentity(upward[0], missing[:count]) for count in range(len(missing), 0, -1))
    return (*below, *map(DirectoryIdentity, upward))


def _may_create(person: Person, handle: int) -> bool:
    folders = enumerate(lineage(handle))
    return all(person.may(SEARCH if number else WRITE | SEARCH, folder) for number, folder in folders)


def _made_for(order: Order) -> Person | None:
    """The person who may write to a new output directory; None for the configured one: only the service may."""
    return None if _is_configured(order) else _submitter(order)


def _submitter(order: Order) -> Person | None:
    """The person to share results with; None for this process's own user, root, or a user unknown to the host."""
    person = Person.who_submitted(order)
    return None if person is None or person.uid in (os.geteuid(), 0) or person.uid < 0 else person


# ---------------------------------------------------------------- directories


def _make_directory(parent: int, name: str, order: Order) -> int:
    """Returns it, open.

    Rights are granted only on a directory made here. The owner of `parent` could replace it by another directory of
    the service, so it must be empty. Raises FileExistsError, and OSError: ENOTSUP for a file system without ACLs.
    """
    service = order.submitter is not None
    os.mkdir(name, DIRECTORY_MODE if service else 0o777, dir_fd=parent)
    handle = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if os.fstat(handle).st_uid != os.geteuid() or os.listdir(handle):  # noqa: PTH208
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        if service and not acl.entries(handle):  # else it has inherited the ACL of its parent's owner
            os.fchmod(handle, DIRECTORY_MODE | os.fstat(handle).st_mode & stat.S_ISGID)
        person = _made_for(order)
        if service and person is not None:
            acl.grant(handle, acl.AclEntry(acl.USER, READ | WRITE | SEARCH, person.uid))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _identity(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino
