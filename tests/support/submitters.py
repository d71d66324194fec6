"""Submitters: other users of the host, with files and ACLs of theirs."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import struct
import tempfile
from pathlib import Path

from tests.support.host import MIB, USER
from tests.support.own_host import FOLDER_PREFIX
from tests.support.service import Service

VICTIM = "nobody"


def service_root() -> Path:
    """A folder of the service's own that everybody may enter. Remove it."""
    root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    shutil.chown(root, USER, USER)
    root.chmod(0o755)
    return root


def disk(path: Path, owner: str, mode: int) -> Path:
    path.write_bytes(b"a raw disk".ljust(MIB, b"\0"))
    shutil.chown(path, owner)
    path.chmod(mode)
    return path


def drop(daemon: Service, name: str, *, owner: str = VICTIM, mode: int = 0o644, **keys: object) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in keys.items())
    draft = daemon.root / f"{name}.yaml"
    draft.write_text(text)
    shutil.chown(draft, owner)
    draft.chmod(mode)
    draft.rename(daemon.spool / "incoming" / draft.name)


IN_CLOSED = ("folder", "file", "link")


def closed_folder(path: Path) -> Path:
    """A folder that only the service may search, with something of each kind in it."""
    path.mkdir()
    (path / "folder").mkdir(mode=0o700)
    (path / "file").write_text("customers")
    (path / "link").symlink_to("/srv/secret-project")
    for one in (path, path / "folder", path / "file"):
        shutil.chown(one, USER)
    path.chmod(0o700)
    return path


OWNER, USERS, GROUP, GROUPS, MASK, OTHER = 1, 2, 4, 8, 16, 32


NOBODY, NOGROUP = pwd.getpwnam(VICTIM).pw_uid, grp.getgrnam("nogroup").gr_gid


def set_acl(path: Path, *acl: tuple[int, int, int]) -> None:
    """Tag, permissions and id of each entry."""
    entries = sorted((tag, number & 0xFFFFFFFF, granted) for tag, granted, number in acl)
    data = b"".join(struct.pack("<HHI", tag, granted, number) for tag, number, granted in entries)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + data)
