"""What the kernel would join to a guest's file system by itself: devices of the host that bear the same UUID."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.asking import ask, linear
from tests.support.host import MIB, USER, command
from tests.support.kernel import Kernel

SIZE = 128 * MIB


@contextmanager
def device_of_the_hosts(path: Path) -> Iterator[str]:
    device = command("losetup", "--find", "--show", path).strip()
    try:
        yield device
    finally:
        command("losetup", "--detach", device)


def test_a_btrfs_that_brings_in_a_device_of_the_host(installed_helper: tuple[str, ...], service_folder: Path) -> None:
    """The image is one half of a file system; the kernel has seen the other one, which nobody handed over."""
    image, hosts = service_folder / "image.raw", service_folder / "hosts.raw"
    for path in (image, hosts):
        with path.open("wb") as file:
            file.truncate(SIZE)
    with device_of_the_hosts(hosts) as other:
        with device_of_the_hosts(image) as one:
            command("mkfs.btrfs", "-q", "-f", "-d", "raid1", "-m", "raid1", one, other)
        shutil.chown(image, USER, USER)
        request = {
            "verb": "mount",
            "job": "test",
            "transport": "file",
            "fstype": "btrfs",
            "read_only": False,
            "table": [linear({"fd": 0, "offset": 0, "length": SIZE})],
            "crypt": [],
            "nbd": [],
        }
        command("btrfs", "device", "scan", other)
        try:
            answer = ask(installed_helper, request=request, fds=[["rw", str(image)]])
        finally:
            command("btrfs", "device", "scan", "--forget", other)
    assert (answer["mounts"], answer["reply"]["error"]) == (0, "mount-failed"), answer
    assert "alone" in answer["reply"]["message"]
    assert Kernel.now().clean
