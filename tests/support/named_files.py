"""Files of an attacker that name files of a victim, and migrations of them.

`MALLORY` owns the folder and what lies in it, unless a case says otherwise; the secret belongs to `VICTIM`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import MIB, USER
from tests.support.own_host import FOLDER_PREFIX
from tests.support.service import PROGRAMS
from tests.support.vmdk_images import descriptor, hosted

MALLORY, VICTIM = "nobody", "games"
SECTORS = MIB // 512


@pytest.fixture
def folder(service_user: object) -> Iterator[Path]:
    """The attacker's, which everybody may look into; the folder above is root's."""
    above = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    path = above / "theirs"
    path.mkdir()
    shutil.chown(path, MALLORY)
    for each in (above, path):
        each.chmod(0o755)
    yield path
    shutil.rmtree(above)


def put(path: Path, data: bytes, owner: str = MALLORY, mode: int = 0o644) -> Path:
    path.write_bytes(data)
    shutil.chown(path, owner)
    path.chmod(mode)
    return path


def link(folder: Path, name: str, data: bytes, owner: str = VICTIM, mode: int = 0o600) -> Path:
    """A hard link `name` to a file of the victim's, which lies in a folder that is closed to all others."""
    closed = folder / f"home-{owner}"
    closed.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(closed, owner)
    os.link(put(closed / name, data, owner, mode), folder / name)
    return folder / name


def flat(name: str, *, parent: str | None = None, cid: str = "fffffffe") -> bytes:
    named = ("fffffffe", parent) if parent else None
    return descriptor("monolithicFlat", f'RW {SECTORS} FLAT "{name}" 0', cid=cid, parent=named)


def sparse(*, parent: str | None = None, alone: bool = True) -> bytes:
    named = ("fffffffe", parent) if parent else None
    return hosted({3: b"S" * 65536}, SECTORS, parent=named, alone=alone).data


def places(folder: Path, user: str) -> tuple[Path, Path]:
    """The conversion directory and the output directory, in a folder of the user's who migrates."""
    own = folder.parent / "own"
    own.mkdir()
    (own / "out").mkdir()
    for path in (own, own / "out"):
        shutil.chown(path, user)
        path.chmod(0o755)
    return own / "conversions", own / "out"


def published(folder: Path) -> list[Path]:
    return list((folder.parent / "own/out").iterdir())


def migrated(
    folder: Path, named: Path, *prefix: str, key: str = "vmdk", more: str = ""
) -> subprocess.CompletedProcess[str]:
    """`h2kvmctl --config`, run by root or by what `prefix` makes of it; `more` are lines of the YAML."""
    conversions, out = places(folder, USER if prefix else "root")
    job = folder.parent / "job.yaml"
    job.write_text(f"{key}: '{named}'\nvm_name: evil\n{more}")
    argv = [*prefix, str(PROGRAMS / "h2kvmctl"), "--config", str(job)]
    argv += ["--conversion-dir", str(conversions), "--output-dir", str(out)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/", check=False)
