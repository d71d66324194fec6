"""The first process of a box: lays it out, runs one test as a child, and reaps what that leaves."""

from __future__ import annotations

import faulthandler
import fcntl
import importlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path

from tests.faults.box import LIMIT_SECONDS, REPOSITORY
from tests.faults.house import ALICE, BOB, SUBMITTERS, USER, House

LAYERS = Path("/mnt")
"""Covered by a tmpfs of the box."""
FIRST_ID = 64900
"""As in tests/support/own_host.py: the service user of a test process has this uid plus its slot."""
GROUP_ID = 65300


def main() -> None:
    case, folder, arguments = sys.argv[1:4]
    child = os.fork()
    if child == 0:
        _work(case, Path(folder), json.loads(arguments))
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) % 256)


def _work(case: str, folder: Path, arguments: dict[str, object]) -> None:
    code = 1
    faulthandler.dump_traceback_later(LIMIT_SECONDS - 30)
    try:
        _lay_out()
        module, _, name = case.partition(":")
        function = getattr(importlib.import_module(module), name)
        house = House(folder / "house")
        try:
            getattr(function, "inside", function)(house, **arguments)
        finally:
            house.close()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lay_out() -> None:
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", LAYERS)
    _copy_etc()
    _make_users(int(os.environ["H2K_BOX_SLOT"]))
    _install_helper()
    _compile_product()
    for place, mode in (("/run", "0755"), ("/tmp", "1777")):
        if not REPOSITORY.is_relative_to(place):
            _mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", place)
    connections = Path("/sys/fs/fuse/connections")
    if connections.is_dir() and not os.path.ismount(connections):
        _mount("-t", "fusectl", "fusectl", connections)
    _raise_loopback()


def _raise_loopback() -> None:
    """SIOCSIFFLAGS of linux/sockios.h, with IFF_UP and IFF_RUNNING of linux/if.h."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))


def _copy_etc() -> None:
    """No overlay: the host's own may be one already, and the kernel stacks two at most."""
    subprocess.run(["cp", "-a", "/etc", LAYERS / "etc"], check=True)
    _mount("--bind", LAYERS / "etc", "/etc")
    Path("/etc/ld.so.preload").unlink(missing_ok=True)


def _install_helper() -> None:
    """The other entries of /usr/libexec stay reachable: sudo has its plugins there."""
    others, own = LAYERS / "others", LAYERS / "libexec"
    others.mkdir()
    own.mkdir()
    _mount("--bind", "/usr/libexec", others)
    for entry in others.iterdir():
        if entry.name != "hyper2kvm":
            (own / entry.name).symlink_to(entry)
    (own / "hyper2kvm").mkdir()
    helper = own / "hyper2kvm/helper"
    shutil.copyfile(REPOSITORY / "hyper2kvmd/helper/helper.py", helper)
    helper.chmod(0o755)
    _mount("--bind", own, "/usr/libexec")
    sudoers = Path("/etc/sudoers.d/hyper2kvm")
    sudoers.unlink(missing_ok=True)
    shutil.copyfile(REPOSITORY / "sudoers.d/hyper2kvm", sudoers)
    sudoers.chmod(0o440)


def _compile_product() -> None:
    """As a package installs it: a process would else compile every module again, and try to keep the outcome."""
    product, copy = REPOSITORY / "hyper2kvmd", LAYERS / "product"
    subprocess.run(["cp", "-a", product, copy], check=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", copy], check=True)
    _mount("--bind", copy, product)


def _make_users(slot: int) -> None:
    """The service's own uid is different for each test process: FUSE connections of the whole host are told by it."""
    users = {USER: FIRST_ID + slot, ALICE: FIRST_ID + 100 + slot, BOB: FIRST_ID + 200 + slot}
    lines = {
        "passwd": [f"{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin" for name, uid in users.items()],
        "group": [
            *(f"{name}:x:{uid}:" for name, uid in users.items()),
            f"{SUBMITTERS}:x:{GROUP_ID}:{','.join(users)}",
        ],
        "shadow": [f"{name}:*:19000:0:99999:7:::" for name in users],
    }
    for name, own in lines.items():
        path = Path("/etc", name)
        kept = [line for line in path.read_text().splitlines() if line.split(":")[0] not in {*users, SUBMITTERS}]
        path.write_text("\n".join([*own, *kept, ""]))


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
