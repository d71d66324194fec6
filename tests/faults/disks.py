"""Sources: small disks, each made anew from a seed, and a small Linux guest that needs repairs."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Literal

MIB = 1 << 20
GUEST = Path(__file__).parents[1] / "golden/debian12-mbr/before/partition-1"
"""The files of a Debian that names its disks as VMware's: fstab, GRUB and the resume device are edited."""
GUEST_UUID = "1b7f8c5e-5b3a-4c53-9f6e-0a2c1d3e4f50"
Subformat = Literal["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"]


def small_disk(folder: Path, seed: int = 1, size: int = 2 * MIB, subformat: Subformat = "monolithicSparse") -> Path:
    """A VMDK without a file system, half of it random bytes."""
    raw = folder / f"small{seed}.raw"
    with raw.open("wb") as file:
        file.truncate(size)
        file.seek(MIB // 2)
        file.write(_bytes(seed, size // 2))
    return _as_vmdk(raw, subformat)


def guest_disk(folder: Path, seed: int = 1) -> Path:
    """A VMDK of 48 MiB with the guest on ext4, and 4 MiB of random files."""
    tree, part, raw = folder / "tree", folder / "part", folder / f"guest{seed}.raw"
    shutil.copytree(GUEST, tree, symlinks=True)
    (tree / "srv").mkdir()
    for number in range(8):
        (tree / f"srv/data{number}").write_bytes(_bytes(seed * 100 + number, MIB // 2))
    with part.open("wb") as file:
        file.truncate(40 * MIB)
    _run("mkfs.ext4", "-q", "-F", "-U", GUEST_UUID, "-d", tree, part)
    with raw.open("wb") as file:
        file.truncate(48 * MIB)
    _run("sfdisk", "-q", raw, stdin="label: dos\nstart=2048, size=81920, type=83, bootable\nstart=86016, type=82\n")
    _run("dd", f"if={part}", f"of={raw}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    shutil.rmtree(tree)
    part.unlink()
    return _as_vmdk(raw, "monolithicSparse")


def _as_vmdk(raw: Path, subformat: Subformat) -> Path:
    """The disk in a folder of its own, where its extents are as well."""
    folder = raw.with_suffix("")
    folder.mkdir()
    vmdk = folder / f"{raw.stem}.vmdk"
    _run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, vmdk)
    raw.unlink()
    for file in folder.iterdir():
        file.chmod(0o644)
    return vmdk


def _bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311 - content, no secret


def _run(*argv: str | Path, stdin: str | None = None) -> None:
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
