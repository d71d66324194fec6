"""What only a kernel with NBD and device-mapper can show. Run inside the virtual machine of test_kernel.py."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu.export import Exporter, export
from hyper2kvmd.model.disks import Image
from tests.support.access import check, client, client_argv
from tests.support.asking import ask, linear, mount_request
from tests.support.deaths import killed_at, lines_in
from tests.support.host import HELPER, as_qcow2, give, make_disk
from tests.support.kernel import Kernel, until_clean

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


SIZE = 64 << 20


@pytest.mark.parametrize(
    ("fd", "changes", "code"),
    [
        (["tcp", ""], {}, "bad-fd"),
        (["pipe", ""], {}, "device-failed"),
        (["unconnected", ""], {}, "device-failed"),
        (["r", "/etc/passwd"], {}, "device-failed"),
        (["silent", ""], {"nbd": [{"size": SIZE, "flags": 0}]}, "bad-request"),
        (["silent", ""], {"nbd": [{"size": SIZE, "flags": 3}]}, "bad-request"),
        (["silent", ""], {"nbd": [{"size": 2 * SIZE, "flags": 1}]}, "bad-range"),
        (["silent", ""], {"nbd": [{"size": SIZE, "flags": 1}]}, "device-failed"),
    ],
    ids=str,
)
def test_servers_that_are_none(
    installed_helper: tuple[str, ...], qcow2: Image, fd: list[str], changes: dict[str, object], code: str
) -> None:
    """The last of them would be one, but never says a word."""
    whole = [linear({"fd": 0, "offset": 0, "length": SIZE})]
    request = mount_request(qcow2, transport="nbd", table=whole, nbd=[{"size": SIZE, "flags": 1}]) | changes
    answer = ask(installed_helper, request=request, fds=[fd])
    assert answer["reply"].get("error") == code, answer
    assert until_clean(), Kernel.now()


Asked = tuple[dict[str, object], list[int]]


@contextmanager
def by_mapping(image: Image, _: Exporter) -> Iterator[Asked]:
    """The same volume in two pieces of one descriptor."""
    segment = image.layout.volumes[0].segments[0]
    half = segment.length // 2
    table = [linear({"fd": 0, "offset": segment.offset + at, "length": half}) for at in (0, half)]
    with image.disks[0].path.open("r+b") as file:
        yield mount_request(image, table=table), [file.fileno()]


@contextmanager
def by_nbd(image: Image, exporter: Exporter) -> Iterator[Asked]:
    negotiated = exporter.negotiate("volume")
    whole = linear({"fd": 0, "offset": 0, "length": negotiated.size})
    export = {"size": negotiated.size, "flags": negotiated.flags}
    with negotiated.sock as sock:
        yield mount_request(image, transport="nbd", table=[whole], nbd=[export]), [sock.fileno()]


@pytest.mark.parametrize("way", [by_mapping, by_nbd])
def test_killed_before_any_line_that_only_this_kernel_runs(
    way: Callable[[Image, Exporter], AbstractContextManager[Asked]],
    installed_helper: tuple[str, ...],
    service_user: pwd.struct_passwd,
    service_folder: Path,
) -> None:
    """All is gone when the next helper has started, if not before: the kernel keeps two things by name for a moment."""
    image = give(make_disk(service_folder / "disk.raw", ("ext4",)))
    segment = image.layout.volumes[0].segments[0]
    ordinary, ours = os.memfd_create("ordinary"), os.memfd_create("ours")
    with image.disks[0].path.open("r+b") as file:
        killed_at(0, mount_request(image), [file.fileno()], service_user, ordinary)
    with export(image.disks[0].path, "raw", service_folder, exports={"volume": segment}, writable=True) as exporter:
        with way(image, exporter) as asked:
            assert killed_at(0, *asked, service_user, ours) == 1
        lines = sorted(set(lines_in(ours)) - set(lines_in(ordinary)))
        assert len(lines) > 30
        for line in lines:
            with way(image, exporter) as asked:
                killed_at(line, *asked, service_user, ours)
            check(installed_helper, ())
            assert until_clean(), f"killed before line {line}: {Kernel.now()}"
