"""The helper and the daemon's unit without sudo, under systemd itself. Run inside the machine of test_kernel.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.orders import HelperCall
from tests.support.access import CLIENT, facts
from tests.support.asking import PROBE, ask
from tests.support.host import (
    REPOSITORY,
    UNITS,
    USER,
    as_qcow2,
    as_raw,
    as_service,
    command,
    give,
    looped,
    make_disk,
    scattered,
    unit_settings,
)
from tests.support.kernel import Kernel, until_clean

SYSTEM = Path("/etc/systemd/system")
SOCKET = Path(unit_settings("hyper2kvm-helper.socket")["ListenSequentialPacket"])
HARDENED = REPOSITORY / "packaging/hyper2kvmd.service.d/hardened.conf"
OF_A_DAEMON = re.compile("^(Type|NotifyAccess|ExecStart|ExecReload|WatchdogSec|Restart.*)=.*\n", re.MULTILINE)
HERE = """
[Service]
Type=oneshot
Environment=PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1
WorkingDirectory={checkout}
ExecStart={argv}
StandardOutput=truncate:/run/trial.out
StandardError=truncate:/run/trial.err
"""
FLOOD = """
import socket, sys
for _ in range(500):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.connect(sys.argv[1])
"""
LOOK = """
import json, pathlib
from hyper2kvmd.host import run
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
names = ("NoNewPrivs", "Seccomp", "CapBnd")
print(json.dumps({"landlock": run.confinement_available(), **{name: status[name].strip() for name in names}}))
"""


@pytest.fixture(scope="module", autouse=True)
def units(installed_helper: tuple[str, ...]) -> Iterator[None]:
    for unit in UNITS.glob("hyper2kvm-helper*"):
        shutil.copy(unit, SYSTEM)
    command("systemctl", "daemon-reload")
    command("systemctl", "start", SOCKET.with_suffix(".socket").name)
    yield
    command("systemctl", "stop", SOCKET.with_suffix(".socket").name)


@pytest.fixture
def state() -> Iterator[Path]:
    """The daemon's own folder: systemd gives it to no other unit."""
    folder = Path("/var/lib/hyper2kvm")
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


def in_the_daemons_place(*argv: object, hardened: bool = True) -> dict[str, Any]:
    """What a program says that runs as the daemon would: in its unit, with the drop-in or without."""
    (SYSTEM / "trial.service").write_text(OF_A_DAEMON.sub("", (UNITS / "hyper2kvmd.service").read_text()))
    folder = SYSTEM / "trial.service.d"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if hardened:
        shutil.copy(HARDENED, folder)
    words = " ".join(f"'{str(word).replace('%', '%%')}'" for word in argv)
    (folder / "here.conf").write_text(HERE.format(path=":".join(sys.path), checkout=REPOSITORY, argv=words))
    command("systemctl", "daemon-reload")
    subprocess.run(["systemctl", "start", "trial.service"], check=False, timeout=300)
    said = Path("/run/trial.out").read_text()
    shown = subprocess.run(["systemctl", "status", "--no-pager", "trial.service"], capture_output=True, text=True)
    assert said, Path("/run/trial.err").read_text() + shown.stdout
    return facts(said)


def formed(folder: Path, form: str) -> Image:
    """A disk with file systems as a `raw` or `qcow2` image, or one file system in pieces: `scattered`."""
    image = give(make_disk(folder / "disk.raw", ("ext4",) if form == "scattered" else ("ext4", "xfs", "btrfs")))
    if form == "scattered":
        image = scattered(image)
    return image if form == "raw" else give(as_qcow2(image))


def edited(image: Image, helper: HelperCall) -> dict[str, Any]:
    """By the socket: under the drop-in. By sudo: without."""
    text, folder, call = image.model_dump_json(), image.disks[0].path.parent, json.dumps(helper, default=str)
    argv = (sys.executable, "-m", CLIENT, "edit", text, folder, call)
    return in_the_daemons_place(*argv, hardened=helper == SOCKET)


def helpers() -> list[str]:
    listed = command("systemctl", "list-units", "--all", "--plain", "--no-legend", "hyper2kvm-helper@*")
    return [line for line in listed.splitlines() if line.strip()]


def until_no_helpers() -> bool:
    for _ in range(300):
        if not helpers():
            return True
        time.sleep(0.1)
    return False


def test_the_daemon_can_do_nothing_more(state: Path) -> None:
    look = state / "look.py"
    look.write_text(LOOK)
    said = in_the_daemons_place(sys.executable, look)
    assert said == {"landlock": True, "NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0000000000000000"}


@pytest.mark.parametrize(("form", "by"), [("raw", "file"), ("qcow2", "nbd"), ("scattered", "nbd")])
@pytest.mark.parametrize("way", ["sudo", "socket"])
def test_guests_are_edited_from_there(
    state: Path, installed_helper: tuple[str, ...], form: str, by: str, way: str
) -> None:
    """By loop, by NBD, and by device-mapper above NBD."""
    image = formed(state, form)
    said = edited(image, SOCKET if way == "socket" else installed_helper)
    assert said.get("done") is True, (said, command("journalctl", "-b", "--no-pager", "-n", "50"))
    assert until_clean(), Kernel.now()
    if form != "scattered":
        with looped(as_raw(image), image.layout.volumes[0].segments[0]) as root:
            assert (root / "etc/fstab").read_text().endswith("# edited\n")
    assert until_no_helpers(), helpers()
    assert f"{by} read_only=False: " in command("journalctl", "-b", "--no-pager", "-t", "hyper2kvm-helper", "-n", "1")


def test_an_operator_is_not_served() -> None:
    operator = ["setpriv", "--reuid=nobody", f"--regid={USER}", "--clear-groups", "--reset-env", "--"]
    assert ask(SOCKET, argv=operator, request=PROBE)["reply"] is None
    assert until_no_helpers(), helpers()
    assert "is not the user hyper2kvm" in command("journalctl", "-b", "--no-pager", "-t", "hyper2kvm-helper")


def test_a_flood_does_not_close_the_socket() -> None:
    subprocess.run(as_service(sys.executable, "-c", FLOOD, SOCKET), check=True, timeout=120)
    assert until_no_helpers(), helpers()
    assert ask(SOCKET, request=PROBE)["reply"]["ok"] is True
