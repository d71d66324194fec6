"""What only a kernel with NBD and device-mapper can show. Run inside the virtual machine of test_kernel.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyper2kvmd.model import Image
from tests.integration.host import HELPER, Kernel, as_qcow2, give, make_disk
from tests.integration.test_access import check, client, client_argv, until_clean

CONNECT_AND_DIE = """
import os, runpy, socket, sys
helper = runpy.run_path(sys.argv[1])
server, client = socket.socketpair()
print(helper["Netlink"]().connect(client.fileno(), 1 << 20, 1, helper["identifier"]()), flush=True)
os.kill(os.getpid(), 9)
"""
CREATE_AND_DIE = """
import os, runpy, sys
helper = runpy.run_path(sys.argv[1])
helper["Mapper"]()._call(3, helper["identifier"]())
os.kill(os.getpid(), 9)
"""


def abandoned_by(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(HELPER)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def qcow2(service_folder: Path) -> Image:
    return give(as_qcow2(make_disk(service_folder / "disk.raw", ("ext4",))))


def test_this_kernel_offers_everything(installed_helper: tuple[str, ...]) -> None:
    status, said = check(installed_helper, ("ext4", "xfs", "btrfs"))
    assert (status, said) == (0, {"transport": "nbd", "unmountable": []})


def mapped() -> list[str]:
    listed = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if line.startswith("h2k-")]


def test_a_device_abandoned_before_its_close_flag_is_swept(installed_helper: tuple[str, ...]) -> None:
    abandoned_by(CONNECT_AND_DIE)
    assert len(Kernel.now().devices) == 1
    check(installed_helper, ())
    assert until_clean(), Kernel.now()


def test_an_abandoned_mapping_is_swept(installed_helper: tuple[str, ...]) -> None:
    abandoned_by(CREATE_AND_DIE)
    assert len(mapped()) == 1
    check(installed_helper, ())
    assert mapped() == []


def test_a_mount_in_use_is_not_swept(installed_helper: tuple[str, ...], qcow2: Image) -> None:
    with subprocess.Popen(client_argv("hold", qcow2, installed_helper), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            before = Kernel.now().devices
            assert any("nbd" in device for device in before)
            check(installed_helper, ())
            assert Kernel.now().devices == before
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()
    assert client("edit", qcow2, installed_helper)[1]["done"] is True


def test_the_host_sees_no_partition_of_the_guest(installed_helper: tuple[str, ...], qcow2: Image) -> None:
    with subprocess.Popen(client_argv("hold", qcow2, installed_helper), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            assert not list(Path("/sys/block").glob("nbd*/nbd*p*"))
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()
