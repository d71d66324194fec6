"""The folders of the spool, with the group and the rights that submitters and the daemon need.

What is missing or different is corrected if that is the daemon's own, and the daemon refuses to start otherwise. So a
spool never lets others in, and never keeps submitters out, because of how it was made.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import stat
from pathlib import Path

from hyper2kvmd.config import SPOOL_MODES, SpoolFolder
from hyper2kvmd.daemon.locks import OWN_FILES
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import Person, group_name, strangers_may_write

log = logging.getLogger(__name__)

SUBMITTERS = "hyper2kvm-submit"
"""The packages' group of those who may drop files."""
SPOOL_MODE = 0o750
"""Of the spool directory: submitters pass through it."""


def prepare(spool_dir: Path) -> None:
    """Create missing folders as the packages do, and correct those that have other rights.

    Raises BrokenInstallation (`spool-unusable`, `spool-incomplete`, `spool-rights`, `spool-split`).
    """
    try:
        group = _submitters(spool_dir)
        if not spool_dir.exists():
            spool_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _make(spool_dir, SPOOL_MODE, group)
        _check_top(spool_dir, group)
        for name, mode in SPOOL_MODES.items():
            folder = spool_dir / name
            if folder.is_dir():
                _correct(folder, mode, group)
            else:
                _make(folder, mode, group)
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY  # its end is waited for
            if not read_only and not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "this user may not write there", str(folder))
        devices = {(spool_dir / name).stat().st_dev for name in SpoolFolder}
    except OSError as error:
        raise BrokenInstallation(
            "spool-unusable",
            f"the spool directory {error.filename or spool_dir} cannot be used: {error.strerror}",
            hint="Create it for the daemon's user, or set another spool_dir",
        ) from error
    if len(devices) != 1:
        raise BrokenInstallation(
            "spool-split",
            f"the folders of {spool_dir} are on different file systems",
            hint="Keep them on one file system: files are moved by renaming",
        )


def _submitters(spool_dir: Path) -> int:
    """The group that somebody chose for `spool_dir` or `incoming`, else the packages' group, else the daemon's own.

    Raises OSError.
    """
    for folder in (spool_dir, spool_dir / SpoolFolder.INCOMING):
        if folder.exists() and folder.stat().st_gid not in (0, os.getegid()):
            return folder.stat().st_gid
    try:
        return grp.getgrnam(SUBMITTERS).gr_gid
    except KeyError:
        own = os.getegid()
        log.warning("the group %s does not exist: files can be dropped by the group %s", SUBMITTERS, group_name(own))
        return own


def _check_top(spool_dir: Path, group: int) -> None:
    """Nobody else may replace a folder, and submitters may pass through; correct a directory of the daemon alone."""
    facts, daemon = spool_dir.stat(), Person.of(os.geteuid())
    mode = stat.S_IMODE(facts.st_mode)
    passable = mode & stat.S_IXOTH or (facts.st_gid == group and mode & stat.S_IXGRP)
    safe = facts.st_uid in (0, daemon.uid) and not strangers_may_write(spool_dir, daemon)
    if safe and passable:
        return
    own = (
        facts.st_uid == daemon.uid
        and not mode & stat.S_ISVTX
        and {path.name for path in spool_dir.iterdir()} <= {*SpoolFolder, *OWN_FILES}
    )
    if own:
        _set(spool_dir, SPOOL_MODE, group)
        return
    place = spool_dir / "hyper2kvm"
    raise BrokenInstallation(
        "spool-rights",
        f"{spool_dir} cannot be the spool: {_described(spool_dir)}, "
        + ("so others can replace its folders" if not safe else f"so {group_name(group)} cannot reach its folders"),
        hint=f"Set spool_dir to {place}, and create it as root: `{_install(place, SPOOL_MODE, group)}`",
    )


def _correct(folder: Path, mode: int, group: int) -> None:
    """Give an existing folder the rights that the packages give it."""
    facts = folder.stat()
    actual = stat.S_IMODE(facts.st_mode)
    if acl.entries(folder):  # the mode's bits of the group are the limit of its named entries
        mode = mode & ~stat.S_IRWXG | actual & stat.S_IRWXG
    right = actual == mode and (facts.st_gid == group or not mode & stat.S_IRWXG)
    if facts.st_uid != os.geteuid():
        raise _refused(folder, mode, group)
    if not right:
        _set(folder, mode, group)
    if folder.name == SpoolFolder.INCOMING and not acl.has_default(folder):
        acl.let_group_read_new_files(folder)


def _set(folder: Path, mode: int, group: int) -> None:
    before = _described(folder)
    try:
        os.chown(folder, -1, group)
        folder.chmod(mode)
    except OSError as error:
        raise _refused(folder, mode, group) from error
    if stat.S_IMODE(folder.stat().st_mode) != mode:  # the kernel sets setgid for members of the group only
        raise _refused(folder, mode, group)
    log.warning("%s: %s; now it has the group %s and mode %04o", folder, before, group_name(group), mode)


def _refused(folder: Path, mode: int, group: int) -> BrokenInstallation:
    return BrokenInstallation(
        "spool-rights",
        f"{folder}: {_described(folder)}, and {Person.of(os.geteuid()).name} cannot correct it",
        hint=f"Correct it as root: `{_install(folder, mode, group)}`",
    )


def _described(folder: Path) -> str:
    facts = folder.stat()
    owner, group = Person.of(facts.st_uid).name, group_name(facts.st_gid)
    return f"it belongs to {owner} and the group {group}, mode {stat.S_IMODE(facts.st_mode):04o}"


def _install(folder: Path, mode: int, group: int) -> str:
    owner, theirs = Person.of(os.geteuid()).name, group_name(group)
    return f"install -d -m {mode:04o} -o {owner} -g {theirs} {folder}"


def _make(folder: Path, mode: int, group: int) -> None:
    """Create a folder, which gets its name only when its group and rights are set."""
    draft = folder.with_name(f".{folder.name}.draft")
    draft.mkdir(mode=0o700, exist_ok=True)
    try:
        os.chown(draft, -1, group)
        draft.chmod(mode)
    except OSError as error:
        draft.rmdir()
        owner, theirs = Person.of(os.geteuid()).name, group_name(group)
        raise BrokenInstallation(
            "spool-incomplete",
            f"{folder} is missing, and {owner} cannot create it for the group {theirs}: {error.strerror}",
            hint=f"Create it as root: `{_install(folder, mode, group)}`",
        ) from error
    if folder.name == SpoolFolder.INCOMING:
        acl.let_group_read_new_files(draft)
    draft.rename(folder)
