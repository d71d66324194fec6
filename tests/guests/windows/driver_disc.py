"""The disc of virtio-win with the drivers of every release, as its files lie on it.

Source: the list of a virtio-win disc's files in virt-v2v's tests.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from tests.guests.guest import cache, finished_at_once, locked
from tests.support import authenticode, virtio_win
from tests.support.authenticode import ATTESTED, authority, microsoft
from tests.support.virtio_win import FILES, Package, Signer, Stamp

Kind = Literal["attested", "test"]
OLDER = {"w7": "6.1", "2k8R2": "6.1", "w8.1": "6.3", "2k12R2": "6.3"}
SINCE_10 = ("w10", "2k16", "2k19", "2k22", "w11", "2k25")
IN_DRIVER_STORE = ("w11", "2k25")
"""Releases whose drivers are not copied to System32."""
WITH_X86 = ("w7", "w8.1", "w10")
UTF_16 = ("w11", "2k25")
"""Releases for which the balloon's INF is a Unicode text, as any INF may be."""
AGAIN = ("viostor", "vioscsi")
"""Drivers that are on the disc a second time, in a folder for Windows' setup."""
EXTRAS = {"NetKVM": ("netkvmco.exe", "netkvmp.exe"), "Balloon": ("blnsvr.exe",)}
"""Programs that no INF names."""
PROTOCOL_INF = """\
[Version]
Signature="$Windows NT$"
Class=NetTrans
ClassGUID={4D36E975-E325-11CE-BFC1-08002BE10318}
Provider="Red Hat, Inc."
DriverVer=01/12/2022,100.90.104.21500
CatalogFile=vioprot.cat
[Manufacturer]
"Red Hat, Inc."=VIOPROT,NTamd64
[VIOPROT.NTamd64]
"VirtIO NetKVM Protocol"=Install,VIOPROT
[Install]
Characteristics=0x0
"""
"""A second INF beside NetKVM's: a protocol, without a device of PCI."""


def cached_disc() -> Path:
    """The whole disc. It is made once, as guests are, and again when a text that it is made from changes."""
    sources = b"".join(Path(file).read_bytes() for file in (__file__, virtio_win.__file__, authenticode.__file__))
    folder = cache() / f"virtio-win-{hashlib.sha256(sources).hexdigest()[:16]}"
    with locked(cache() / "lock-virtio-win"):
        if not folder.exists():
            with finished_at_once(folder) as unfinished:
                files = driver_folder(unfinished / "files")
                virtio_win.image(files, unfinished / "virtio-win.iso").chmod(0o444)
                shutil.rmtree(files)
    return folder / "virtio-win.iso"


def driver_folder(root: Path, kind: Kind = "attested", folders: tuple[str, ...] = (*OLDER, *SINCE_10)) -> Path:
    """The files of the disc. Drivers for Windows 10 and later are signed as `kind` says, others by a test's signer."""
    with tempfile.TemporaryDirectory() as name:
        test = authority(key="rsa").with_tool(Path(name) / "test")
        signers = {"test": test}
        if kind == "attested":
            signers[kind] = microsoft(ATTESTED, key="rsa").with_tool(Path(name) / kind)
        virtio_win.tree(root, test, ())
        for folder in folders:
            for architecture in ("amd64", "x86") if folder in WITH_X86 else ("amd64",):
                _write(root, folder, architecture, signers[kind] if folder in SINCE_10 else test)
    return root


def _write(root: Path, folder: str, architecture: str, signer: Signer) -> None:
    for driver in FILES:
        utf_16 = driver == "Balloon" and folder in UTF_16
        place = Package(driver, folder, _stamp(folder, architecture), architecture, utf_16).write(root, signer)
        if driver in AGAIN:
            shutil.copytree(place, root / architecture / folder, dirs_exist_ok=True)
        for name in EXTRAS.get(driver, ()):
            (place / name).write_bytes(virtio_win.program(architecture) + name.encode())
        if driver == "NetKVM" and folder in SINCE_10:
            (place / "vioprot.inf").write_bytes(PROTOCOL_INF.replace("\n", "\r\n").encode())


def _stamp(folder: str, architecture: str) -> Stamp:
    """Versions of drivers begin with that of Windows."""
    if older := OLDER.get(folder):
        return Stamp(f"{architecture}.{older}", version=f"{older.replace('.', '')}.90.104.21500")
    in_store = folder in IN_DRIVER_STORE
    return Stamp(f"{architecture}.10.0...16299" if in_store else f"{architecture}.10.0", dirid=13 if in_store else 12)
