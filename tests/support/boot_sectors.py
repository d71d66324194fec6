"""Disks that hold no more than a boot sector."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hyper2kvmd.host.boot_sector import LOADED_AT, boot_sector
from hyper2kvmd.model.disks import Image
from tests.guests.altered import image_of

SIZE = 64 << 20


def assembled(source: str, folder: Path) -> bytes:
    """The machine code of a program for GNU as, at the place where a BIOS puts it."""
    object_file, binary = folder / "sector.o", folder / "sector.bin"
    subprocess.run(["as", "--64", "-o", object_file], input=source, text=True, check=True)
    layout = [f"-Ttext={LOADED_AT:#x}", f"--entry={LOADED_AT:#x}", "--oformat=binary"]
    subprocess.run(["ld", *layout, "-o", binary, object_file], check=True)
    return binary.read_bytes()


def small(folder: Path, code: bytes = b"") -> Image:
    """A disk in `folder` from which a BIOS starts `code`, or nothing."""
    raw = folder / "small.raw"
    with raw.open("wb") as file:
        file.write(boot_sector(code) if code else b"")
        file.truncate(SIZE)
    return image_of(raw)
