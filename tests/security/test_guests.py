"""Guests that lay traps for whoever edits them: mounted by the real helper, repaired by the service user.

Each trap is a file that would send a careless editor to the host, or make it wait for ever. The host's file must stay
as it was, and the guest must be refused, or repaired in its own files.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.model.disks import Image
from tests.support.host import USER, give, looped, make_disk, service_python
from tests.support.kernel import Kernel

HOSTS_OWN = "the host's own\n"


def slash(root: Path, secret: Path) -> None:
    """/etc is a link to /: the guest's own one, never the host's."""
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to("/")
    (root / "fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")


def absolute_link(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to(secret)


def climbing_link(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to("../" * 40 + str(secret)[1:])


def climbing_folder(root: Path, secret: Path) -> None:
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to("../" * 40 + str(secret.parent)[1:])


def magic_link(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to("/proc/self/root/" + str(secret)[1:])


def loop_of_links(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to("fstab2")
    (root / "etc/fstab2").symlink_to("fstab")


def fifo(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    os.mkfifo(root / "etc/fstab", 0o666)


def device(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    os.mknod(root / "etc/fstab", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def folder_for_a_file(root: Path, secret: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").mkdir()


def endless(root: Path, secret: Path) -> None:
    with (root / "etc/fstab").open("wb") as file:
        file.truncate(1 << 40)


def two_names(root: Path, secret: Path) -> None:
    (root / "kept").hardlink_to(root / "etc/fstab")


def setuid(root: Path, secret: Path) -> None:
    (root / "etc/fstab").chmod(0o4755)


TRAPS: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "etc is a link to /": (slash, "read", "replaced"),
    "a link to a file of the host": (absolute_link, "ENOENT", "ELOOP"),
    "a link that climbs": (climbing_link, "ENOENT", "ELOOP"),
    "a folder that climbs": (climbing_folder, "ENOENT", "ENOENT"),
    "a link through /proc": (magic_link, "ENOENT", "ELOOP"),
    "links in a circle": (loop_of_links, "ELOOP", "ELOOP"),
    "a FIFO": (fifo, "guest-file-odd", "guest-file-odd"),
    "a device": (device, "guest-file-odd", "guest-file-odd"),
    "a folder": (folder_for_a_file, "guest-file-odd", "guest-file-odd"),
    "a file without end": (endless, "guest-file-too-large", "replaced"),
    "two names": (two_names, "read", "replaced"),
    "setuid": (setuid, "read", "replaced"),
}
"""What is laid, what reading /etc/fstab then gives, and what replacing it does."""


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_stays_inside_the_guest(name: str, installed_helper: tuple[str, ...], service_folder: Path) -> None:
    lay, reading, replacing = TRAPS[name]
    host = service_folder / "host"
    host.mkdir()
    secret = host / "fstab"
    secret.write_text(HOSTS_OWN)
    for path in (host, secret):
        shutil.chown(path, USER, USER)
    image = give(make_disk(service_folder / "disk.raw", ("ext4",)))
    segment = image.layout.volumes[0].segments[0]
    with looped(image.disks[0].path, segment) as root:
        lay(root, secret)
    assert visited(image, installed_helper) == {"read": reading, "replace": replacing}
    assert {path.name: path.read_text() for path in host.iterdir()} == {"fstab": HOSTS_OWN}
    assert Kernel.now().clean
    with looped(image.disks[0].path, segment) as root:
        if replacing == "replaced":
            assert os.path.realpath(root / "etc") in (str(root / "etc"), "/")
            made = root / ("fstab" if (root / "etc").is_symlink() else "etc/fstab")
            assert made.read_text() == "replaced\n"
        if name == "two names":
            assert (root / "kept").read_text() == "/dev/sda1 / ext4 defaults 0 1\n"
        if name == "setuid":
            assert stat.S_IMODE((root / "etc/fstab").stat().st_mode) == 0o755, "no words of ours run as root"


def test_a_folder_swapped_for_a_link_while_it_is_used(tmp_path: Path) -> None:
    """Another program of the guest's, say, or its disk mounted twice: every lookup stays in the guest all the same."""
    host, guest, over = tmp_path / "host", tmp_path / "guest", threading.Event()
    for folder in (host, guest, guest / "real"):
        folder.mkdir()
        (folder / "fstab").write_text(HOSTS_OWN if folder == host else "the guest's own\n")

    def swap() -> None:
        while not over.is_set():
            for target in ("/real", str(host), "../host"):
                (guest / "draft").symlink_to(target)
                (guest / "draft").rename(guest / "etc")

    swapper, handle = threading.Thread(target=swap), os.open(guest, os.O_PATH)
    swapper.start()
    seen, root = set[str](), ConfinedRoot(handle)
    try:
        for count in range(300_000):
            if count > 3000 and len(seen) > 1:
                break
            with suppress(FileNotFoundError, BlockingIOError):  # the second: a `..` while something was renamed
                seen.add(root.read("/etc/fstab", 100).decode())
                root.replace("/etc/fstab", b"replaced\n")
    finally:
        over.set()
        swapper.join()
        os.close(handle)
    assert seen == {"the guest's own\n", "replaced\n"}
    assert (host / "fstab").read_text() == HOSTS_OWN and len(list(host.iterdir())) == 1


def visited(image: Image, helper: tuple[str, ...]) -> dict[str, str]:
    folder = image.disks[0].path.parent
    argv = service_python("tests.support.visitor", image.model_dump_json(), folder, json.dumps(helper))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout)
    assert HOSTS_OWN not in outcomes.values()
    return outcomes
